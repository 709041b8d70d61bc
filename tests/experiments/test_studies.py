"""The three studies of overlap as a lever, tiny: what they record, and that they go on."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jnnk import InputError, models
from jnnk.cli import main
from jnnk.data import Dataset, Normalization, only_classes
from jnnk.experiments import channel_pruning as pruning
from jnnk.experiments import early_stopping as stopping
from jnnk.experiments import regularizer
from jnnk.experiments.runner import LoadedNetwork
from jnnk.jobs.fit import Watched
from jnnk.runs.records import Interval, LayerMeasures

# What measures a layer is tested elsewhere.
UNDEFINED = Interval(mean=None, lower=None, upper=None)
MEASURED = LayerMeasures(
    channels=4, dead_channels=0, overlap=Interval(mean=0.25, lower=None, upper=None),
    overlap_by_chance=None, redundancy=Interval(mean=0.5, lower=None, upper=None),
    channel_degree=UNDEFINED, degree=UNDEFINED, mle_dimension=UNDEFINED, two_nn_dimension=None,
    channel_loo_error=None, vote_loo_error=0.5, loo_error=0.5,
)  # fmt: skip
NORMALIZATION = Normalization(np.float32([0.5]), np.float32([0.25]))


class Net(nn.Module):
    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.relu(nn.Conv(4, (3, 3), name="conv1")(images))
        return nn.Dense(2, name="fc")(x.mean((1, 2))), {"conv1": x}


@pytest.fixture(scope="module")
def dataset():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (64, 8, 8, 1), dtype=np.uint8)
    labels = rng.integers(0, 2, 64).astype(np.int32)
    return Dataset("noise", images, labels, images, labels, ("a", "b"), NORMALIZATION)


@pytest.mark.thorough
def test_regularizer_study(dataset, tmp_path, monkeypatch):
    measured = []

    def measure_layer(values, labels, **_):
        measured.append(values.shape)
        return MEASURED, None

    monkeypatch.setattr("jnnk.experiments.runner.measure_layer", measure_layer)
    settings = regularizer.Settings(
        strengths=(), seeds=(0,), baselines=("cka",), baseline_strengths=(0.5, 2.0),
        layers=("conv1",), pool=2, epochs=1, batch_size=16, overlap_images=20,
    )  # fmt: skip

    def study(**changes):
        with jax.numpy_dtype_promotion("standard"):  # Optax's Adam
            return regularizer.reproduce_regularizer(
                tmp_path, Net(), dataset, settings=settings._replace(**changes)
            )

    summary = study()
    assert [(row.penalty, row.strength) for row in summary] == [
        ("none", 0), ("cka", 0.5), ("cka", 2.0)
    ]  # fmt: skip
    assert measured == [(20, 4, 4, 4)] * 3
    for row in summary:
        assert row.overlap.mean == 0.25 and row.channel_loo_error.mean is None
        assert 0 <= row.accuracy.mean <= 1 and 0 <= row.prunable.mean < 1 and row.seeds == 1
    rows = list(csv.DictReader((tmp_path / "summary.csv").read_text().splitlines()))
    assert [float(row["accuracy"]) for row in rows] == [row.accuracy.mean for row in summary]
    assert (tmp_path / "regularizer.png").stat().st_size > 0
    twice = study(seeds=(0, 1))
    assert len(measured) == 6 and all(row.seeds == 2 for row in twice)
    assert twice[0].accuracy.std is not None
    with pytest.raises(InputError, match="epochs"):
        study(epochs=2)


@pytest.mark.thorough
def test_early_stopping_study(dataset, tmp_path, monkeypatch):
    def fake(name, model, data, *, patience):
        ends = {"channel-nnk": 2, "nnk": 1, "validation": 3}[name]
        if name == "validation":
            data = data._replace(
                train_images=data.train_images[:48], train_labels=data.train_labels[:48]
            )
        return data, lambda state, epochs: (state, Watched({}, {}, len(epochs) + 1 >= ends))

    monkeypatch.setattr(stopping, "stopping", fake)
    settings = stopping.Settings(seeds=(0, 1), epochs=3, batch_size=16)
    with jax.numpy_dtype_promotion("standard"):  # Optax's Adam
        summary = stopping.reproduce_early_stopping(tmp_path, Net(), dataset, settings=settings)
    by_rule = {row.rule: row for row in summary}
    assert tuple(by_rule) == stopping.RULES
    epochs = {rule: row.epochs.mean for rule, row in by_rule.items()}
    assert epochs == {"none": 3, "channel-nnk": 2, "nnk": 1, "validation": 3}
    validation = by_rule["validation"]
    assert validation.images.mean == 0.75 and validation.passes.mean == 2.25
    assert by_rule["none"].stopped_early == 0 and by_rule["nnk"].stopped_early == 2
    assert (tmp_path / "early_stopping.png").stat().st_size > 0


@pytest.mark.thorough
def test_channel_pruning_study(dataset, tmp_path):
    model = models.create("resnet8", num_classes=2)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    settings = pruning.Settings(
        criteria=("redundancy", "random"), keep_rates=(0.5,), stream_rates=(0.7,), seeds=(0, 1),
        graph_images=32, neighbors=5, test_images=32, tune_images=32, batch_size=16,
    )  # fmt: skip
    network = [LoadedNetwork("net", model, variables)]
    summary = pruning.reproduce_channel_pruning(tmp_path, network, dataset, settings=settings)
    removed = [(row.keep_rate, row.streams, row.criterion) for row in summary]
    assert removed == [
        (rate, streams, criterion)
        for rate, streams in ((0.5, False), (0.7, True))
        for criterion in ("redundancy", "random")
    ]
    for row in summary:
        assert 0.4 < row.cost.macs < 0.7 and row.cost.latency > 0
        assert 0 <= row.one_shot.mean <= 1 and row.fine_tuned.std is not None
    assert summary[0].one_shot.std is None and summary[1].one_shot.std is not None
    assert (tmp_path / "channel_pruning.png").stat().st_size > 0
    before = (tmp_path / "net/streams0.7/redundancy.json").stat().st_mtime_ns
    assert pruning.reproduce_channel_pruning(
        tmp_path, network, dataset, settings=settings
    ) == summary  # fmt: skip
    assert (tmp_path / "net/streams0.7/redundancy.json").stat().st_mtime_ns == before


def test_only_classes(dataset):
    reversed_set = only_classes(dataset, ("b", "a"))
    np.testing.assert_array_equal(reversed_set.train_labels, 1 - dataset.train_labels)
    alone = only_classes(dataset, ("b",))
    assert (alone.test_labels == 0).all() and alone.class_names == ("b",)
    np.testing.assert_array_equal(alone.test_images, dataset.test_images[dataset.test_labels == 1])
    with pytest.raises(InputError, match="no class c; known: a, b"):
        only_classes(dataset, ("a", "c"))


@pytest.mark.parametrize("claim", ["regularizer", "early-stopping", "channel-pruning"])
def test_the_commands_say_what_is_missing(claim, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["reproduce", claim, "--shared", str(tmp_path), "--out", str(out)]) == 2
    assert str(tmp_path) in capsys.readouterr().err.replace("\n", "") and not out.exists()
