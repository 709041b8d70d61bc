import csv

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnnk import InputError
from jnnk.cli import main
from jnnk.data import Dataset, Normalization
from jnnk.experiments import pruning as job
from jnnk.pruning import apply_masks, make_masks

SETTINGS = job.Settings(
    criteria=("weight", "random"),
    steps=10,
    bracket_images=40,
    batch_size=16,
    learning_rate=1e-3,
)


class Net(nn.Module):
    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.relu(nn.Conv(4, (3, 3), name="conv1")(images))
        x = nn.relu(nn.Conv(6, (3, 3), name="conv2")(x))
        return nn.Dense(3, name="fc")(x.mean((1, 2))), {"conv2": x}


IMAGES = np.random.default_rng(0).integers(0, 256, (160, 8, 8, 1), dtype=np.uint8)
MEAN, STD = np.float32([0.5]), np.float32([0.25])


def predict(variables):
    return np.asarray(Net().apply(variables, (IMAGES / np.float32(255) - MEAN) / STD)[0])


@pytest.fixture(scope="module")
def network():
    """A network whose answers differ from image to image."""
    model = Net()
    params = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))["params"]
    bias = -np.median(predict({"params": params}), axis=0)
    params = {**params, "fc": {**params["fc"], "bias": bias}}
    return job.LoadedNetwork("net", model, {"params": params})


@pytest.fixture(scope="module")
def dataset(network):
    """Images labelled by the network itself: it is always right, and pruning makes it wrong."""
    labels = predict(network.variables).argmax(1).astype(np.int32)
    assert np.bincount(labels).min() > 20
    normalization = Normalization(MEAN, STD)
    return Dataset("noise", IMAGES, labels, IMAGES, labels, ("a", "b", "c"), normalization)


@pytest.fixture(scope="module")
def done(network, dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reproduce")
    return folder, job.reproduce_pruning(folder, [network], dataset, settings=SETTINGS)


def test_every_case_is_measured_at_its_turning_point(done):
    _, records = done
    assert [(r.start, r.prunable.criterion) for r in records] == [
        (start, criterion) for start in job.STARTS for criterion in SETTINGS.criteria
    ]
    for record in (case.prunable for case in records):
        assert 100 * (record.accuracy_before - record.accuracy) <= 0.5 + 1e-9
        assert 100 * (record.accuracy_before - record.next_accuracy) > 0.5
        roots = np.sqrt([record.share, record.next_share])
        np.testing.assert_allclose(roots[1] - roots[0], 1 / SETTINGS.steps)
        kept = 1 - record.share
        assert record.score == pytest.approx(
            record.accuracy / record.accuracy_before * (1 - record.params)
        )
        assert record.params == pytest.approx(kept, abs=0.15)


def test_accuracies_are_those_of_the_masked_network(done, network, dataset):
    record = done[1][0].prunable
    params = network.variables["params"]
    masks = make_masks(params, criterion="weight", keep_rate=1 - record.share)
    expected = np.mean(
        predict({"params": apply_masks(params, masks)}).argmax(1) == dataset.test_labels
    )
    assert record.accuracy == pytest.approx(expected)


def test_the_tables_hold_the_records(done):
    folder, records = done
    rows = list(csv.DictReader((folder / "table.csv").read_text().splitlines()))
    assert [row["criterion"] for row in rows] == list(SETTINGS.criteria)
    assert float(rows[0]["net, one-shot (%)"]) == pytest.approx(100 * records[0].prunable.share)
    assert (folder / "table.md").read_text().count("\n") == 4
    for name in ("results.json", "table.tex", "prunable_shares.svg"):
        assert (folder / name).stat().st_size > 0


def test_a_second_run_measures_nothing_anew(done, network, dataset, monkeypatch):
    folder, records = done

    def never(*_):
        raise AssertionError("evaluated again")

    monkeypatch.setattr(job, "make_evaluate", lambda *_, **__: never)
    assert job.reproduce_pruning(folder, [network], dataset, settings=SETTINGS) == records


def test_other_settings_are_refused(done, network, dataset):
    with pytest.raises(InputError, match="tolerance"):
        job.reproduce_pruning(
            done[0], [network], dataset, settings=SETTINGS._replace(tolerance=1.0)
        )


def test_the_command_says_what_is_missing(tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["reproduce", "pruning", "--shared", str(tmp_path), "--out", str(out)]) == 2
    assert "cifar10" in capsys.readouterr().err
    assert not out.exists()
