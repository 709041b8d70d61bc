import csv
import json
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnnk import InputError
from jnnk.cli import main
from jnnk.data import Dataset, Normalization, only_classes
from jnnk.experiments import overlap as job
from jnnk.experiments import overlap_epochs, overlap_runs
from jnnk.experiments.overlap_settings import Settings
from jnnk.models.convnet import ConvNet, LayerSpec
from jnnk.runs.json_files import to_json

pytestmark = pytest.mark.thorough

SETTINGS = Settings(
    neighbors=6,
    images=40,
    label_neighbors=6,
    label_queries=60,
    classes=("ship", "plane"),
    sizes=(40,),
    dropouts=(0.0,),
    weight_decays=(0.0,),
    repeats=1,
    steps=7,
    batch_size=16,
    learning_rate=0.03,
)
LAYERS = (LayerSpec(3, 1, False), LayerSpec(3, 1, True))
MODEL = ConvNet(num_classes=3, layers=LAYERS, channels=3)
SAME = Normalization(np.zeros(1, np.float32), np.ones(1, np.float32))


class Measured(NamedTuple):
    network: str
    epoch: int
    overlap: float
    test_error: float
    gap: float


def create(rate):
    return ConvNet(num_classes=2, layers=LAYERS, channels=3, dropout=rate)


INIT = jax.jit(MODEL.init, static_argnames="train")


def weights(epoch):
    return INIT(jax.random.key(epoch), jnp.zeros((1, 8, 8, 1)), train=False)


@pytest.fixture(scope="module")
def dataset():
    """Noise on a bright or dark ground, or on half of each."""
    rng = np.random.default_rng(0)
    labels = np.arange(180, dtype=np.int32) % 3
    ground = np.stack([np.full((8, 8), 40), np.full((8, 8), 160), np.indices((8, 8))[0] // 4 * 120])
    images = (ground[labels] + rng.integers(0, 90, (180, 8, 8)))[..., None].astype(np.uint8)
    names = ("plane", "ship", "both")
    return Dataset("noise", images[:120], labels[:120], images[120:], labels[120:], names, SAME)


@pytest.fixture(scope="module")
def inputs(dataset):
    return job.Inputs(
        create=create,
        run_dataset=dataset,
        pair=[job.LoadedNetwork(name, MODEL, weights(7)) for name in ("one", "same")],
        pair_dataset=dataset,
        trajectories=[overlap_epochs.Trajectory("net", MODEL, 2, weights)],
        trajectory_dataset=dataset,
    )


@pytest.fixture(scope="module", autouse=True)
def optax_mixes_dtypes():
    """In every thread: the trainings run beside each other."""
    jax.config.update("jax_numpy_dtype_promotion", "standard")
    yield
    jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture(scope="module")
def done(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reproduce")
    return folder, job.reproduce_overlap(folder, inputs, settings=SETTINGS)


def test_errors_of_an_epoch_are_the_networks(done, dataset):
    record = done[1].epochs[1]
    assert (record.network, record.epoch) == ("net", 2)
    errors = record.errors
    for error, images, labels in (
        (errors.train_error, dataset.train_images, dataset.train_labels),
        (errors.test_error, dataset.test_images, dataset.test_labels),
    ):
        logits, _ = MODEL.apply(weights(1), images.astype(np.float32) / 255)
        assert error == pytest.approx(np.mean(np.asarray(logits).argmax(1) != labels))
    assert errors.gap == errors.test_error - errors.train_error
    # Chance is 2 in 3; a random network keeps the grounds apart.
    assert max(errors.nnk_error, errors.knn_error, errors.loo_error) < 0.3
    assert [layer.layer for layer in errors.layers] == ["conv0", "conv1"]
    assert errors.overlap == errors.layers[1].measures.overlap.mean


def test_equal_networks_have_equal_channels(done):
    one, same = (
        [record.layer for record in done[1].pair if record.network == name]
        for name in ("one", "same")
    )
    assert one == same
    assert [layer.layer for layer in one] == ["conv0", "conv1"]
    for found in (layer.measures for layer in one):
        for interval in (found.overlap, found.redundancy, found.degree):
            assert interval.lower <= interval.mean <= interval.upper


def test_a_run_is_measured_as_it_was_trained(done):
    (record,) = done[1].runs
    assert (record.seed, record.size, record.dropout) == (0, 40, 0.0)
    assert record.gap == record.train_accuracy - record.test_accuracy
    assert record.measures.channels == 3
    assert record.test_accuracy > 0.5  # bright from dark


def test_correlations_are_of_the_records(done, inputs):
    rng = np.random.default_rng(3)
    records = [
        Measured(name, epoch, -epoch, epoch + noise, 1)
        for name in ("a", "b")
        for epoch, noise in enumerate(rng.normal(size=8))
    ]
    rows = job.correlations(
        job.by_network(records),
        lambda r: r.overlap,
        {"test_error": lambda r: r.test_error, "gap": lambda r: r.gap},
        {"": lambda r: (), "epoch": lambda r: (r.epoch,)},
    )
    by_case = {(r.group, r.quantity, r.method, r.given): r for r in rows}
    assert len(by_case) == len(rows) == 3 * 2 * 2 * 2
    row = by_case["a", "test_error", "pearson", ""]
    expected = np.corrcoef([(r.overlap, r.test_error) for r in records[:8]], rowvar=False)
    assert row.correlation == pytest.approx(expected[0, 1])
    assert row.lower < row.correlation < row.upper
    assert by_case["pooled", "test_error", "spearman", ""].number == 16
    # Overlap is the epoch's mirror here, so nothing is left of it; the gap is constant.
    assert by_case["a", "test_error", "pearson", "epoch"].correlation is None
    assert by_case["b", "gap", "spearman", ""].correlation is None


def test_the_files_hold_the_records(done):
    folder, results = done
    assert json.loads((folder / "results.json").read_text()) == to_json(results)
    rows = list(csv.DictReader((folder / "last_errors.csv").read_text().splitlines()))
    assert float(rows[0]["nnk_error"]) == results.epochs[-1].errors.nnk_error
    for name in ("run_correlations", "epoch_correlations", "pair_means"):
        rows = getattr(results, name)
        assert (folder / f"{name}.md").read_text().count("\n") == len(rows) + 2
    for name in ("runs", "pair", "errors", "layers", "epochs"):
        assert (folder / f"{name}.svg").stat().st_size > 0


def test_what_a_kill_cost_is_measured_again_and_nothing_else(done, inputs, monkeypatch):
    folder, results = done
    lost = folder / "epochs" / "net" / "epoch0001.json"
    before = lost.read_bytes()
    lost.unlink()
    monkeypatch.setattr(job, "make_evaluate", lambda *_, **__: pytest.fail("again"))
    monkeypatch.setattr(overlap_runs.Trainer, "measure", lambda *_: pytest.fail("again"))
    monkeypatch.setattr(job, "save_figure", lambda *_: None)  # slow, and drawn once already
    assert job.reproduce_overlap(folder, inputs, settings=SETTINGS) == results
    assert lost.read_bytes() == before


def test_other_settings_are_refused(done, inputs):
    with pytest.raises(InputError, match="steps"):
        job.reproduce_overlap(done[0], inputs, settings=SETTINGS._replace(steps=8))


def test_classes_are_chosen_by_name(dataset):
    chosen = only_classes(dataset, ("ship", "plane"))
    assert chosen.class_names == ("ship", "plane")
    assert len(chosen.train_images) == 80
    bright = chosen.train_images.mean((1, 2, 3)) > 128
    np.testing.assert_array_equal(chosen.train_labels == 0, bright)


def test_every_training_takes_its_steps():
    case = overlap_runs.Case(seed=0, size=40, dropout=0.0, weight_decay=0.0)
    batches = list(overlap_runs.batches(case, 16, 7))
    assert [len(rows) for rows in batches] == [16] * 7
    for first in (0, 2, 4):  # two batches of an epoch share no image
        assert len(np.unique(np.concatenate(batches[first : first + 2]))) == 32
    assert not np.array_equal(batches[0], batches[2])


def test_the_command_says_what_is_missing(tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["reproduce", "overlap", "--shared", str(tmp_path), "--out", str(out)]) == 2
    assert "cifar10" in capsys.readouterr().err
    assert not out.exists()
