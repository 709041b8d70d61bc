"""A training that diverged is never a result, nor is what was made of its network."""

import functools
import itertools
import json
import shutil
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from tiny import NETWORK, write_images

from jnnk.cli import main
from jnnk.data import Dataset, Normalization
from jnnk.experiments import overlap_runs
from jnnk.experiments.overlap_settings import Settings
from jnnk.jobs.fit import fit
from jnnk.jobs.overlap import chosen_epochs
from jnnk.runs.checkpoints import Checkpoints
from jnnk.runs.contents import collect
from jnnk.runs.divergence import Diverged, divergence, first_not_finite, read_metrics
from jnnk.runs.folder import open_run
from jnnk.runs.json_files import read_json_lines, write_json, write_json_lines
from jnnk.runs.overlap_files import layer_file
from jnnk.runs.progress import Silent
from jnnk.runs.records import Divergence
from jnnk.runs.settings import OverlapConfig
from jnnk.training import Metrics, make_evaluate

fails = functools.partial(tiny.fails, has_notes=True)

DATA = Dataset(
    "noise", *(np.zeros((20, 1, 1, 1), np.uint8), np.zeros(20, np.int32)) * 2, ("a",),
    Normalization(np.zeros(1, np.float32), np.ones(1, np.float32)),
)  # fmt: skip


class Counter(NamedTuple):
    """A state that only counts steps."""

    count: jax.Array

    @property
    def variables(self):
        return {"count": self.count}


def counting(folder, *, loss, epochs=3, accuracy=lambda count: 0.5):
    """Trains a counter with batches of 2, ten steps an epoch; ``loss`` is a function of the step"""

    def step(state, batch):
        count = state.count + 1
        return Counter(count), Metrics(*[jnp.float32(loss(int(count)))] * 2, *[jnp.float32(0)] * 2)

    return fit(
        lambda: Counter(jnp.int32(0)), step, DATA,
        evaluate=lambda variables, images, labels: accuracy(int(variables["count"])),
        epochs=epochs, batch_size=2, seed=0, folder=folder, progress=Silent(),
        description="train", remedy="patience",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("broken", "value"),
    [(1, np.nan), (6, np.inf), (7, -np.inf), (10, np.nan), (11, np.inf), (30, np.nan)],
)
def test_the_step_of_the_first_loss_that_is_not_finite(broken, value, tmp_path):
    def loss(step):
        return value if step == broken else 1.0  # whatever comes after it

    epoch, step = (broken - 1) // 10 + 1, (broken - 1) % 10 + 1
    with pytest.raises(Diverged, match=f"loss is {value} at step {step} of epoch {epoch}; try pat"):
        counting(tmp_path, loss=loss)
    lines = read_metrics(tmp_path)
    assert [line.epoch for line in lines] == list(range(1, epoch + 1))
    assert divergence(lines) == Divergence(epoch, step)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.latest() == epoch - 1
    # Again from the last good checkpoint: the same end, or, with another step, a whole training.
    with pytest.raises(Diverged, match=f"step {step} of epoch {epoch}"):
        counting(tmp_path, loss=loss)
    assert int(counting(tmp_path, loss=lambda step: 1.0).count) == 30
    assert divergence(read_metrics(tmp_path)) is None


def test_losses_are_looked_at_where_they_are_fetched_anyway(tmp_path):
    """Never after every step: that would wait for the device each time."""
    steps, fetched = [], []

    class Loss:
        def __float__(self):
            fetched.append(len(steps))
            return 1.0

    def step(state, batch):
        steps.append(batch)
        return Counter(state.count + 1), Metrics(Loss(), *[jnp.float32(0)] * 3)

    fit(
        lambda: Counter(jnp.int32(0)), step, DATA, evaluate=lambda *_: 0.5, epochs=1,
        batch_size=2, seed=0, folder=tmp_path, progress=Silent(), description="",
    )  # fmt: skip
    assert [count for count in fetched if count < 10] == [1, 6]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"epochs": -1}, "epochs: expected 0 or more"),
        ({"batch_size": 21}, "batch_size: expected 1"),
    ],
)
def test_fits_without_meaning(options, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        fit(
            None, None, DATA, evaluate=None, seed=0, folder=tmp_path / "new", progress=Silent(),
            description="", **{"epochs": 1, "batch_size": 2} | options,
        )  # fmt: skip
    assert not (tmp_path / "new").exists()


def test_a_network_whose_answers_are_not_finite(tmp_path):
    def accuracy(count):
        return np.nan if count == 20 else 0.5

    with pytest.raises(Diverged, match="answers to test images are not finite at epoch 2"):
        counting(tmp_path, loss=lambda step: 1.0, accuracy=accuracy)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.latest() == 1


def test_evaluation_of_logits_that_are_not_finite():
    class Model:
        def init(self, rngs, images, *, train):
            return jnp.float32(1)

        def apply(self, variables, images, *, train):
            # An image of value v answers (0, v / 255 * scale); 0 * inf is NaN.
            return jnp.stack([0 * images[:, 0, 0, 0], images[:, 0, 0, 0] * variables], -1), {}

    normalization = Normalization(np.zeros(1), np.ones(1))
    evaluate = make_evaluate(Model(), normalization=normalization, batch_size=4)
    images = np.array([255, 51, 0, 102, 204], np.uint8)[:, None, None, None]
    labels = np.array([1, 1, 0, 0, 1], np.int32)
    assert evaluate(jnp.float32(1), images, labels) == 0.8
    for scale in (np.nan, np.inf):
        assert np.isnan(evaluate(jnp.float32(scale), images, labels))
    # The zeros that fill the last batch, whose 0 * inf is NaN, count for nothing.
    is_lost = [np.isnan(evaluate(jnp.float32(np.inf), images[:1], labels[:1] + n)) for n in (0, 1)]
    assert is_lost == [True, True]


def test_first_not_finite():
    assert first_not_finite([]) is None
    assert first_not_finite([1.0, 3e38, -5.0]) is None
    assert first_not_finite([1.0, np.inf, np.nan]) == (2, np.inf)


def test_the_networks_of_the_overlap_study_are_checked(monkeypatch):
    class State(NamedTuple):
        variables: dict

    trainer = object.__new__(overlap_runs.Trainer)
    trainer._settings = Settings(steps=4, batch_size=2)
    losses = itertools.chain([1.0, 1.0, np.nan, 1.0])
    trainer._optimizers = {0.0: None}
    trainer._init = lambda key, images, train: {}
    trainer._steps = {
        (0.0, 0.0): lambda state, batch: (state, Metrics(*[jnp.float32(next(losses))] * 4))
    }
    monkeypatch.setattr(overlap_runs, "start_state", lambda *_: State({}))
    with pytest.raises(Diverged, match=r"size=8.*loss is nan at step 3"):
        trainer._train(overlap_runs.Case(0, 8, 0.0, 0.0), DATA.train_images, DATA.train_labels)


PRUNE = ["--criteria", "weight", "--criterion", "weight", "--share", "0.5"]
CHANNELS = {
    "criterion": "l1_norm",
    "share": 0.5, **dict.fromkeys(("accuracy_before", "accuracy_pruned", "accuracy_finetuned"), 1),
    "kept": {"layers": [], "kernels": [2, 1], "filters": [2, 1], "params": [2, 1], "macs": [2, 1]},
    "finetune_epochs": 1, "revived_weights": 0, "latency": None,
    "compacted": {"largest_difference_of_logits": 0.0},
}  # fmt: skip
SMALL = ["--batch-size", "8", "--epochs", "2", "--measure-epochs", "0", "1", "2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A whole run, before it is said to have diverged."""
    folder = tmp_path_factory.mktemp("diverged")
    data = write_images(folder / "images.npz")
    path = folder / "run"
    assert main(["train", "--dataset", str(data), *NETWORK, *SMALL, "--out", str(path)]) == 0
    assert main(["prune", str(path), *PRUNE]) == 0
    # What takes longer to make than to write down.
    write_json(path / "channels" / "l1_norm" / "result.json", CHANNELS)
    shutil.copy(path / "prune" / "metrics.jsonl", path / "channels" / "l1_norm")
    return path


def old(run, tmp_path, part="", epoch=2):
    """The folder as an earlier version left it: no finite loss from an epoch on, all else done."""
    copy = shutil.copytree(run, tmp_path / "old")
    path = copy / part / "metrics.jsonl"
    lines = read_json_lines(path)
    write_json_lines(
        path, [{**line, "loss": None} if line["epoch"] >= epoch else line for line in lines]
    )
    return copy


@pytest.mark.thorough
def test_a_diverging_run_stops_and_says_what_to_try(run, tmp_path, capsys):
    out = tmp_path / "run"
    data = run.parent / "images.npz"
    words = ["train", "--dataset", data, *NETWORK, *SMALL, "--learning-rate", "1e30", "--out", out]
    line = fails(capsys, *words)
    assert "at step 2 of epoch 1" in line and "a smaller --learning-rate than 1e+30" in line
    assert not (out / "report.html").exists()
    assert line == fails(capsys, *words, "--resume")
    for command in ("overlap", "prune", "export"):
        words = [command, out, *(["--out", tmp_path / "torch"] if command == "export" else [])]
        assert "its training diverged (no finite loss at step 2 of epoch 1)" in fails(
            capsys, *words
        )
    assert sorted(path.name for path in out.iterdir() if not path.name.startswith(".")) in (
        ["checkpoints", "config.json", "cores.json", "metrics.jsonl"],
        ["checkpoints", "config.json", "cores.json", "metrics.jsonl", "tensorboard"],
    )


@pytest.mark.thorough
def test_an_old_run_that_diverged_has_no_first_screen(run, tmp_path, capsys):
    folder = old(run, tmp_path)
    write_json(layer_file(folder, 1, "conv5", "json"), {"epoch": 1, "depth": 5, "layer": "conv5"})
    assert main(["report", str(folder), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["diverged"] == {"training": {"epoch": 2, "step": None}}
    assert not {"test_accuracy", "redundancy", "share", "kernels"} & said.keys()
    page = (folder / "report.html").read_text()
    first = page[page.index("<h1>") : page.index("<section")]
    assert "What went wrong?" in first and "no finite loss at epoch 2" in first
    for answer in ("How good is it?", "What can go?", "What does it cost?"):
        assert answer not in page
    results = json.loads((folder / "results.json").read_text())
    assert [line["epoch"] for line in results["training"]] == [1]
    assert results["overlap"] == [] and results["pruning"] is None and results["channels"] == {}
    for command in ("overlap", "prune", "export"):
        words = [command, folder, *(["--out", tmp_path / "torch"] if command == "export" else [])]
        assert "its training diverged (no finite loss at epoch 2)" in fails(capsys, *words)
    for command in ("train", "study"):
        assert "its training diverged" in fails(capsys, command, "--resume", "--out", folder)
    assert "diverged" in fails(capsys, "overlap", folder, "--at-epochs", "1", "2")
    # What was before is as good as ever.
    assert chosen_epochs(open_run(folder), OverlapConfig(at_epochs=(1,))) == [0, 1]


def test_a_comparison_says_which_run_diverged(run, tmp_path, capsys):
    folder, page = old(run, tmp_path, epoch=1), tmp_path / "page.html"
    assert main(["report", str(run), str(folder), "--out", str(page), "--json"]) == 0
    whole, broken = json.loads(capsys.readouterr().out)["runs"]
    assert "test_accuracy" in whole and "test_accuracy" not in broken
    assert "training diverged at epoch 1 and is left out" in page.read_text()


@pytest.mark.parametrize(
    ("part", "words", "title"),
    [
        ("prune", [], "What can go?"),
        ("channels/l1_norm", ["--channels", "l1_norm"], "What if whole channels go?"),
    ],
)
def test_a_fine_tuning_that_diverged_is_left_out(part, words, title, run, tmp_path, capsys):
    whole = collect(open_run(run))
    assert whole.pruning and whole.channels
    folder = old(run, tmp_path, part, epoch=1)
    capsys.readouterr()
    assert f"{folder / part}: its training diverged" in fails(capsys, "prune", folder, *words)
    assert main(["report", str(folder), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["diverged"] == {part: {"epoch": 1, "step": None}} and said["test_accuracy"] > 0
    page = (folder / "report.html").read_text()
    assert title not in page and "these parts are no results" in page


def test_a_fine_tuning_that_diverges_leaves_no_result(run, tmp_path, capsys):
    folder = shutil.copytree(run, tmp_path / "copy")
    shutil.rmtree(folder / "prune")
    line = fails(
        capsys, "prune", folder, *PRUNE,
        "--finetune-epochs", "2", "--finetune-learning-rate", "1e30",
    )  # fmt: skip
    assert "a smaller --finetune-learning-rate than 1e+30" in line
    assert not (folder / "prune" / "result.json").exists()
    results = collect(open_run(folder))
    assert "prune" in results.diverged and results.pruning is None
