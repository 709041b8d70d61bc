"""``jnnk reproduce regularizer``: what penalising the channels' overlap does to a network.

One small network, trained anew for every penalty, strength (both signs) and seed, and then
measured: the hard Jaccard overlap of the regularised layers as ``jnnk overlap`` measures it, test
accuracy, the gap to the training accuracy, and the share of kernels that can be pruned. Every
trained network has a folder of its own, so the command goes on where it was stopped.
"""

import functools
import itertools
import pathlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.linen import Module

from jnnk.data import Dataset, first_images
from jnnk.experiments.pruning import Accuracies
from jnnk.experiments.pruning import Settings as PruningSettings
from jnnk.experiments.pruning import measure as measure_pruning
from jnnk.experiments.runner import measure_layers, run_cases
from jnnk.jobs.fit import fit
from jnnk.jobs.trainer import Recipe
from jnnk.penalties import make_regularizer
from jnnk.report.figures.levers import regularizer_effects
from jnnk.report.output import save_study
from jnnk.runs.json_files import read_or_measure
from jnnk.runs.part_settings import note_or_check_settings
from jnnk.runs.progress import SILENT, Progress
from jnnk.runs.records import over_seeds, spread
from jnnk.runs.settings import OverlapConfig
from jnnk.runs.study_records import RegularizedNetwork, RegularizerSummary
from jnnk.training import (
    Batch,
    TrainState,
    init_state,
    make_evaluate,
    make_predict,
    make_train_step,
)


class Case(NamedTuple):
    """One training."""

    penalty: str  # its name, or "none"
    strength: float  # of the penalty
    seed: int  # of initialisation and order


class Settings(NamedTuple):
    """What is trained and measured; two folders with the same settings hold the same numbers."""

    strengths: tuple[float, ...] = (0.3, 1.0, 3.0)  # of each sign
    # of initialisation and order; there is no augmentation
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    baselines: tuple[str, ...] = ("decorrelation", "cka")  # other penalties
    baseline_strengths: tuple[float, ...] = (1.0,)  # of those
    layers: tuple[str, ...] = ("layer2*",)  # patterns of the layers penalised and measured
    pool: int = 2  # side of the windows of pixels that are averaged, for speed
    train_images: int = 2400  # first training images, trained on
    test_images: int = 2000  # first test images, for every accuracy
    epochs: int = 4  # passes over them
    batch_size: int = 64  # images per step, and of the penalty's graphs
    learning_rate: float = 0.1  # peak rate of SGD
    overlap_images: int = 600  # training images whose overlap is measured
    neighbors: int = 25  # candidates K of that
    tolerance: float = 1.0  # accuracy that pruning may lose, in points
    criterion: str = "weight"  # by which kernels are ranked over the network

    def cases(self) -> list[Case]:
        """By seed every penalty and strength, without a penalty first."""
        signed = sorted({sign * strength for strength in self.strengths for sign in (-1, 1)})
        others = itertools.product(self.baselines, self.baseline_strengths)
        each = [("none", 0.0), *(("overlap", strength) for strength in signed), *others]
        return [Case(*penalty, seed) for seed in self.seeds for penalty in each]


def reproduce_regularizer(
    folder: pathlib.Path,
    model: Module,
    dataset: Dataset,
    *,
    settings: Settings | None = None,
    progress: Progress = SILENT,
) -> tuple[RegularizerSummary, ...]:
    """Trains and measures what is not there yet; tables and figure are made of all.

    Only the first images of the data set are used. The folder gets what `save_study` writes, and a
    folder for each network.

    Raises:
        InputError: if the folder holds results made with other settings, or no layer matches.
    """
    settings = settings or Settings()
    # Which networks are trained is free, not how.
    free = ("seeds", "strengths", "baselines", "baseline_strengths")
    note_or_check_settings(folder, settings, free=free)
    dataset = first_images(dataset, train=settings.train_images, test=settings.test_images)
    dataset = dataset._replace(
        train_images=_pooled(dataset.train_images, settings.pool),
        test_images=_pooled(dataset.test_images, settings.pool),
    )
    study = _Study(folder, model, dataset, settings, progress)
    records = run_cases(
        "reproduce regularizer",
        settings.cases(),
        study.record,
        unit="network",
        progress=progress,
        show=lambda record: {"accuracy": record.accuracy},
    )
    summary = over_seeds(RegularizerSummary, records, by=("penalty", "strength"))
    caption = "Means over seeds; the overlap is the hard Jaccard overlap of the penalised layers."
    figure = ("regularizer", regularizer_effects(summary))
    save_study(folder, records, summary, caption=caption, figure=figure)
    return summary


def _pooled(images: np.ndarray, side: int) -> np.ndarray:
    """uint8 images (N, H, W, C) averaged over windows; a ragged edge is left out."""
    height, width = (size // side * side for size in images.shape[1:3])
    windows = images[:, :height, :width].reshape(
        len(images), height // side, side, width // side, side, -1
    )
    return np.round(windows.mean((2, 4))).astype(np.uint8)


@dataclass
class _Study:
    """Trains and measures; programs are compiled once for all strengths and seeds."""

    folder: pathlib.Path
    model: Module
    dataset: Dataset
    settings: Settings
    progress: Progress

    def __post_init__(self) -> None:
        normalization, settings = self.dataset.normalization, self.settings
        self._evaluate = make_evaluate(self.model, normalization=normalization)
        self._predict = make_predict(self.model, normalization=normalization)
        self._optimizer = Recipe.of(settings, weight_decay=5e-4).make_optimizer(self.dataset)
        self._step = functools.cache(self._make_step)

    def record(self, case: Case) -> RegularizedNetwork:
        """The record of one network, from its file where there is one."""
        part = self.folder / f"{case.penalty}_{case.strength:+g}" / f"seed{case.seed}"
        measure = functools.partial(self._measure, part, case)
        return read_or_measure(part / "record.json", measure, kind=RegularizedNetwork)

    def _make_step(self, name: str) -> Callable[[TrainState, Batch, np.float32], Any]:
        """A training step whose strength is an argument, so that all strengths share it."""

        def step(state, batch, strength):
            penalty = None
            if name != "none":
                of_layers = make_regularizer(name, strength=1.0, layers=self.settings.layers)
                penalty = lambda *inputs: strength * of_layers(*inputs)  # noqa: E731
            return make_train_step(
                self.model, self._optimizer, normalization=self.dataset.normalization,
                augment=False, regularizer=penalty,
            )(state, batch)  # fmt: skip

        return jax.jit(step, donate_argnums=0)

    def _train(self, part: pathlib.Path, case: Case) -> dict:
        settings, dataset = self.settings, self.dataset
        step, strength = self._step(case.penalty), np.float32(case.strength)
        start = functools.partial(
            init_state, self.model, self._optimizer, jax.random.key(case.seed),
            image_shape=dataset.train_images.shape[1:],
        )  # fmt: skip
        return fit(
            start,
            lambda state, batch: step(state, batch, strength),
            # The accuracy after every epoch is only looked at: few images do.
            first_images(dataset, test=500),
            evaluate=self._evaluate, epochs=settings.epochs, batch_size=settings.batch_size,
            seed=case.seed, folder=part, progress=self.progress.unseen(), description="",
        ).variables  # fmt: skip

    def _measure(self, part: pathlib.Path, case: Case) -> RegularizedNetwork:
        settings, dataset = self.settings, self.dataset
        variables = self._train(part, case)
        self.progress.check()
        accuracy = self._evaluate(variables, dataset.test_images, dataset.test_labels)
        trained = self._evaluate(variables, dataset.train_images, dataset.train_labels)
        config = OverlapConfig(images=settings.overlap_images, neighbors=settings.neighbors)
        measured = first_images(dataset, train=settings.overlap_images)
        layers = measure_layers(self._predict, variables, measured, config, layers=settings.layers)
        accuracies = Accuracies(
            part / "accuracies.json", variables, dataset, self._evaluate, self.progress
        )
        pruning = PruningSettings(tolerance=settings.tolerance, steps=40, bracket_images=1000)
        found = layers.values()
        return RegularizedNetwork(
            **case._asdict(),
            overlap=spread([layer.overlap.mean for layer in found]).mean,
            channel_loo_error=spread([layer.channel_loo_error for layer in found]).mean,
            redundancy=spread([layer.redundancy.mean for layer in found]).mean,
            accuracy=accuracy,
            gap=trained - accuracy,
            prunable=measure_pruning(accuracies, settings.criterion, pruning).share,
            layers=layers,
        )
