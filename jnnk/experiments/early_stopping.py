"""``jnnk reproduce early-stopping``: stopping channel by channel against a validation set.

The experiment of arXiv 2107.12972: a small ConvNet on two classes of CIFAR-10, by Adam at a
constant rate, without augmentation. For every seed it is trained to the end, with channel-wise
stopping, and with a fifth of the images held out. Stopping by the last layer's error changes
nothing before it ends a training, so it is read off the one to the end. Every training has a folder
of its own, so the command goes on where it was stopped.
"""

import itertools
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
from flax.linen import Module

from jnnk.data import Dataset, first_images
from jnnk.experiments.runner import run_cases
from jnnk.jobs.fit import Monitor, Watched, fit
from jnnk.jobs.stopping import stopping
from jnnk.report.figures.levers import stopping_rules
from jnnk.report.output import save_study
from jnnk.runs.divergence import read_epochs
from jnnk.runs.part_settings import note_or_check_settings
from jnnk.runs.progress import SILENT, Progress
from jnnk.runs.records import EpochMetrics, over_seeds
from jnnk.runs.study_records import StoppedTraining, StoppingSummary
from jnnk.training import (
    TrainState,
    freezable,
    init_state,
    make_evaluate,
    make_optimizer,
    make_train_step,
    start_freezing,
)

CLASSES = ("airplane", "ship")
RULES = ("none", "channel-nnk", "nnk", "validation")


class Settings(NamedTuple):
    """What is trained; two folders with the same settings hold the same numbers."""

    seeds: tuple[int, ...] = tuple(range(10))  # of initialisation and order
    epochs: int = 20  # at most, passes over the training images
    patience: int = 2  # epochs without a smaller error
    train_images: int = 10_000  # first training images of the two classes
    batch_size: int = 50  # images per step
    learning_rate: float = 1e-3  # of Adam, constant


def reproduce_early_stopping(
    folder: pathlib.Path,
    model: Module,
    dataset: Dataset,
    *,
    settings: Settings | None = None,
    progress: Progress = SILENT,
) -> tuple[StoppingSummary, ...]:
    """Trains what is not trained yet; tables and figure are made of all.

    The data set is of the two classes, see
    :func:`jnnk.data.only_classes`. The folder gets what `save_study` writes, and a folder for each
    training.

    Raises:
        InputError: if the folder holds results made with other settings.
    """
    settings = settings or Settings()
    note_or_check_settings(folder, settings, free=("seeds",))
    dataset = first_images(dataset, train=settings.train_images)
    study = _Study(folder, model, dataset, settings, progress)
    trainings = run_cases(
        "reproduce early-stopping",
        list(itertools.product(settings.seeds, study.rules)),
        study.train,
        unit="training",
        progress=progress,
        show=lambda found: {"accuracy": found[-1].accuracy},
    )
    records = list(itertools.chain.from_iterable(trainings))
    in_order = sorted(records, key=lambda record: RULES.index(record.rule))
    summary = over_seeds(StoppingSummary, in_order, by=("rule",), summed=("stopped_early",))
    caption = f"Early stopping on {' and '.join(dataset.class_names)}; means over seeds."
    figure = ("early_stopping", stopping_rules(records))
    save_study(folder, records, summary, caption=caption, figure=figure)
    return summary


@dataclass
class _Study:
    """Trains by every rule; programs are compiled once for all rules and seeds."""

    folder: pathlib.Path
    model: Module
    dataset: Dataset
    settings: Settings
    progress: Progress

    def __post_init__(self) -> None:
        model, dataset, settings = self.model, self.dataset, self.settings
        # Frozen or not, one program; over so many steps the schedule is constant.
        self._optimizer = freezable(
            make_optimizer("adam", learning_rate=settings.learning_rate, num_steps=10**7)
        )
        self._step = make_train_step(
            model, self._optimizer, normalization=dataset.normalization, augment=False
        )
        self._evaluate = make_evaluate(model, normalization=dataset.normalization)
        self.rules = _rules(model, dataset, patience=settings.patience)

    def train(self, case: tuple[int, str]) -> list[StoppedTraining]:
        """A training by a rule; of the one to the end, also where the last layer would stop."""
        (seed, name), settings = case, self.settings
        data, monitor = self.rules[name]
        part = self.folder / name / f"seed{seed}"
        fit(
            partial(self._start, seed), self._step, data, evaluate=self._evaluate,
            epochs=settings.epochs, batch_size=settings.batch_size, seed=seed, folder=part,
            progress=self.progress.unseen(), description="", monitor=monitor,
        )  # fmt: skip
        epochs = read_epochs(part)
        share = len(data.train_images) / len(self.dataset.train_images)
        found = [_record(name, seed, epochs, share)]
        if name == "none":
            ended = next((n for n, epoch in enumerate(epochs, 1) if epoch.would_stop), None)
            found.append(_record("nnk", seed, epochs[:ended], share))
        return found

    def _start(self, seed: int) -> TrainState:
        shape = self.dataset.train_images.shape[1:]
        state = init_state(self.model, self._optimizer, jax.random.key(seed), image_shape=shape)
        return start_freezing(state)


def _rules(
    model: Module, dataset: Dataset, *, patience: int
) -> dict[str, tuple[Dataset, Monitor | None]]:
    """By rule what is trained on and what ends it; the last layer is only watched."""
    rules = {name: stopping(name, model, dataset, patience=patience) for name in RULES[1:]}
    _, watched = rules.pop("nnk")
    assert watched is not None, "there is a rule"
    return {**rules, "none": (dataset, _only_watched(watched))}


def _only_watched(monitor: Monitor) -> Monitor:
    """The monitor without its say: whether it would stop is noted instead."""

    def watch(state: TrainState, epochs: Sequence[EpochMetrics]) -> tuple[TrainState, Watched]:
        state, watched = monitor(state, epochs)
        return state, watched._replace(stopped=False, would_stop=watched.stopped)

    return watch


def _record(rule: str, seed: int, epochs: Sequence[EpochMetrics], share: float) -> StoppedTraining:
    """One training, on a share of the images, that ended after these epochs."""
    last = epochs[-1]
    return StoppedTraining(
        rule=rule,
        seed=seed,
        epochs=len(epochs),
        accuracy=last.test_accuracy,
        best_accuracy=max(epoch.test_accuracy for epoch in epochs),
        images=share,
        passes=share * len(epochs),
        stopped_early=bool(last.stopped or last.would_stop) and rule != "none",
        accuracies=tuple(epoch.test_accuracy for epoch in epochs),
        stopped_channels=tuple(epoch.stopped_channels for epoch in epochs),
    )
