"""Every command gives the same records on one, two and eight devices.

Run as a program, ``test_devices.py FOLDER`` runs all commands, one after the other, on the devices
that there are, on a few digits and with the smallest settings.
"""

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kills import without_times

from jnnk import models
from jnnk.cli import main
from jnnk.data import first_images, load, only_classes
from jnnk.experiments import channel_pruning, early_stopping, overlap, pruning, regularizer
from jnnk.experiments.overlap_epochs import Trajectory
from jnnk.experiments.overlap_settings import Settings as OverlapSettings
from jnnk.experiments.runner import LoadedNetwork
from jnnk.runs.protocols import PROTOCOLS

pytestmark = pytest.mark.thorough

DEVICES = (1, 2, 8)
IMAGES, TEST_IMAGES = 160, 80
NETWORK = ["--model", "convnet6", "--model-options", "channels=4"]
TRAINING = [*NETWORK, "--epochs", "2", "--batch-size", "32", "--learning-rate", "0.02"]
MEASURING = ["--images", "40", "--neighbors", "5", "--layers", "conv[45]"]
PRUNING = ["--criteria", "weight", "--sweep-images", "40", "--share", "0.5"]
TUNING = ["--finetune-epochs", "1"]
#: A network of one's own.
OWN = """
from flax import nnx


class Net(nnx.Module):
    def __init__(self, num_classes):
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.head = nnx.Linear(4, num_classes, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.relu(self.norm(self.conv(x))).mean((1, 2)))
"""


def run_every_command(folder: pathlib.Path) -> None:
    digits = first_images(load("digits"), train=IMAGES, test=TEST_IMAGES)
    arrays = {
        name: getattr(digits, name)
        for name in ("train_images", "train_labels", "test_images", "test_labels")
    }
    np.savez(folder / "digits.npz", **arrays)
    where = ["--dataset", str(folder / "digits.npz")]
    # What XLA adds up over devices it adds up in another order: the rest is to be equal.
    mesh = ["--mesh", f"data={jax.device_count()}"]

    def jnnk(*words: str | pathlib.Path) -> None:
        assert main(list(map(str, [*words, "--quiet"]))) == 0, words

    study, imported, torch = (folder / name for name in ("study", "imported", "torch"))
    jnnk("study", *where, *TRAINING, *MEASURING, *PRUNING, *TUNING, "--out", study)
    jnnk("export", study, "--out", torch)
    weights = torch / "trained.safetensors"
    jnnk("import-weights", weights, *where, *NETWORK, "--out", imported)
    jnnk("overlap", imported, *MEASURING)
    jnnk("prune", imported, *PRUNING, *TUNING)
    jnnk("prune", imported, "--channels", "redundancy", "--share", "0.25", *TUNING)
    PROTOCOLS["short"] = PROTOCOLS["short"]._replace(epochs=2, retrain_epochs=1)
    short = ["--protocol", "short", "--seeds", "0", "--criteria", "weight", "det"]
    jnnk("prune", imported, *short)
    jnnk("report", imported)
    jnnk("report", study, imported, "--out", folder / "both.html")
    stopped = folder / "stopped"
    jnnk("train", *where, *TRAINING, "--stop", "channel-nnk", "--out", stopped)
    jnnk("train", *where, *TRAINING, *mesh, "--stop", "nnk", "--out", folder / "mesh")
    jnnk("overlap", folder / "mesh", *MEASURING, *mesh)
    (folder / "own_net.py").write_text(OWN)
    sys.path.insert(0, str(folder))
    own = ["--model", "own_net:Net"]
    penalty = ["--regularizer", "overlap", "--regularizer-strength", "0.1"]
    jnnk("train", *own, *where, *TRAINING[4:], *mesh, *penalty, "--out", folder / "mesh-own")
    jnnk("overlap", folder / "mesh-own", *own, *MEASURING[:4], *mesh)
    reproduce_all(folder, digits)


def reproduce_all(folder: pathlib.Path, digits) -> None:
    """The jobs of ``jnnk reproduce`` on what they are not given by the command: few digits."""

    def convnet(rate: float = 0.0, classes: int = 10):
        return models.create("convnet6", num_classes=classes, channels=4, dropout=rate)

    def weights(seed: int) -> dict:
        return jax.jit(convnet().init)(jax.random.key(seed), jnp.zeros((1, 8, 8, 1)))

    two = only_classes(digits, ("0", "1"))
    network = LoadedNetwork("net", convnet(), weights(0))
    pruning.reproduce_pruning(
        folder / "pruning", [network], digits,
        settings=pruning.Settings(criteria=("weight",), steps=8, bracket_images=40, batch_size=32),
    )  # fmt: skip
    channel_pruning.reproduce_channel_pruning(
        folder / "channel-pruning", [network], digits,
        settings=channel_pruning.Settings(
            criteria=("redundancy", "random"), keep_rates=(0.75,), tuned_rates=(0.75,),
            stream_rates=(), seeds=(0,),
            test_images=40, tune_images=64, batch_size=32, graph_images=40, neighbors=5,
        ),
    )  # fmt: skip
    regularizer.reproduce_regularizer(
        folder / "regularizer", convnet(), digits,
        settings=regularizer.Settings(
            strengths=(), seeds=(0,), baselines=("cka",), layers=("conv4",), pool=1, epochs=1,
            batch_size=32, overlap_images=40, neighbors=5,
        ),
    )  # fmt: skip
    early_stopping.reproduce_early_stopping(
        folder / "early-stopping", convnet(classes=2), two,
        settings=early_stopping.Settings(seeds=(0,), epochs=2, batch_size=8),
    )  # fmt: skip
    overlap.reproduce_overlap(
        folder / "overlap",
        overlap.Inputs(
            create=lambda rate: convnet(rate, classes=2),
            run_dataset=digits,
            pair=[LoadedNetwork(str(seed), convnet(), weights(seed)) for seed in (0, 1)],
            pair_dataset=digits,
            trajectories=[Trajectory("net", convnet(), 1, weights)],
            trajectory_dataset=digits,
        ),
        settings=OverlapSettings(
            neighbors=5, images=40, label_neighbors=5, label_side=1, label_queries=40,
            classes=("0", "1"), sizes=(20,), dropouts=(0.0,), weight_decays=(0.0,),
            repeats=2, steps=3, batch_size=10,
        ),
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[int, pathlib.Path]:
    """What all commands make, by the number of devices."""
    folders = {number: tmp_path_factory.mktemp(f"devices{number}") for number in DEVICES}
    flags, running = os.environ.get("XLA_FLAGS", ""), []
    for number, folder in folders.items():
        environment = os.environ | {
            "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={number}",
            "JAX_PLATFORMS": "cpu",
            "JAX_NUMPY_DTYPE_PROMOTION": "standard",  # of Optax's Adam
        }
        with (folder / "said").open("w") as said:
            command = [sys.executable, __file__, str(folder)]
            running.append(subprocess.Popen(command, env=environment, stdout=said, stderr=said))
    try:
        for process, folder in zip(running, folders.values(), strict=True):
            assert process.wait(timeout=1200) == 0, (folder / "said").read_text()[-6000:]
    finally:
        for process in running:
            process.kill()
            process.wait()
    return folders


def records(folder: pathlib.Path) -> dict[str, Any]:
    """All numbers under a folder by file, without times and what says where it lies."""
    found = {}
    for path in sorted((*folder.rglob("*.json"), *folder.rglob("metrics.jsonl"))):
        if "checkpoints" in path.parts or path.name == "config.json":
            continue
        text = path.read_text()
        record = [json.loads(line) for line in text.splitlines()] if ".jsonl" in path.name else None
        record = without_times(json.loads(text) if record is None else record)
        if isinstance(record, dict):
            record.pop("config", None)
        found[str(path.relative_to(folder))] = record
    return found


@pytest.mark.parametrize("devices", DEVICES[1:])
def test_every_command_gives_the_same_records(made, devices):
    expected, found = (records(made[number]) for number in (1, devices))
    assert list(found) == list(expected) and len(expected) > 40
    for name, record in expected.items():
        # Gradients that devices add up differ in their last digits, and so does what follows.
        if not name.startswith(("mesh/", "mesh-own/")):
            assert_same(found[name], record, name)


def assert_same(found: Any, expected: Any, place: str) -> None:
    """Equal but for the last digits: XLA has a thread a device, and shares some sums among them."""
    assert type(found) is type(expected), place
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), place
        for key, value in expected.items():
            # A vote among 31 images can hang on such a digit; what it decides is compared.
            if key == "errors" and place.startswith("early-stopping/"):
                continue
            assert_same(found[key], value, f"{place} {key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), place
        for number, value in enumerate(expected):
            assert_same(found[number], value, f"{place} {number}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-7), place
    else:
        assert found == expected, place


@pytest.mark.parametrize("devices", DEVICES[1:])
@pytest.mark.parametrize("name", ["trained", "pruned", "pruned_masks"])
def test_exports_are_the_same_to_the_bit(made, devices, name):
    contents = [
        (made[number] / "torch" / f"{name}.safetensors").read_bytes() for number in (1, devices)
    ]
    assert contents[0] == contents[1]


@pytest.mark.parametrize("devices", DEVICES[1:])
@pytest.mark.parametrize("run", ["mesh", "mesh-own"])
def test_a_mesh_differs_by_rounding_only(made, devices, run):
    losses = []
    for number in (1, devices):
        lines = (made[number] / run / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


if __name__ == "__main__":
    run_every_command(pathlib.Path(sys.argv[1]))
