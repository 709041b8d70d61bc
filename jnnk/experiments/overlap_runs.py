"""Many small networks trained here: does overlap tell which of them generalise?"""

import itertools
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.linen import Module

from jnnk.data import Dataset, epoch_order, only_classes
from jnnk.experiments.overlap_settings import Settings
from jnnk.experiments.runner import measure_layers, run_cases
from jnnk.network import layer_shapes
from jnnk.runs.divergence import Diverged, first_not_finite
from jnnk.runs.json_files import read_or_measure
from jnnk.runs.progress import Progress
from jnnk.runs.study_records import TrainedNetwork
from jnnk.training import (
    Batch,
    make_evaluate,
    make_optimizer,
    make_predict,
    make_train_step,
    start_state,
)

# Trainings side by side: a step of so small a network runs mostly on one core.
_STREAMS = 2


class Case(NamedTuple):
    """One training."""

    seed: int  # of the choice of images, the start and the order
    size: int  # training images
    dropout: float  # rate
    weight_decay: float  # of AdamW


def measure_runs(
    folder: pathlib.Path,
    create: Callable[[float], Module],
    dataset: Dataset,
    settings: Settings,
    progress: Progress,
) -> tuple[TrainedNetwork, ...]:
    """A record per case: trained and measured, or read from its file in the folder.

    The network that ``create`` makes for a dropout rate differs in its dropout alone; the data set
    has the settings' classes among its own.
    """
    trainer = Trainer(create, only_classes(dataset, settings.classes), settings)
    combinations = itertools.product(
        range(settings.repeats), settings.sizes, settings.dropouts, settings.weight_decays
    )
    cases = [Case(seed, *values[1:]) for seed, values in enumerate(combinations)]

    def record(case: Case) -> TrainedNetwork:
        seed, size, dropout, weight_decay = case
        name = f"{seed:03d}-size{size}-dropout{dropout:g}-decay{weight_decay:g}.json"
        return read_or_measure(folder / name, lambda: trainer.measure(case), kind=TrainedNetwork)

    return run_cases(
        "five-channel networks",
        cases,
        record,
        unit="run",
        progress=progress,
        show=lambda record: {"test_accuracy": record.test_accuracy},
        streams=_STREAMS,
    )


class Trainer:
    """Trains and measures cases, on a data set of the chosen classes, with programs made once."""

    def __init__(self, create: Callable[[float], Module], dataset: Dataset, settings: Settings):
        self._dataset, self._settings = dataset, settings
        model = create(0.0)
        self._init = jax.jit(model.init, static_argnames="train")
        self._predict = make_predict(model, normalization=dataset.normalization)
        self._evaluate = make_evaluate(model, normalization=dataset.normalization)
        self._optimizers = {
            decay: make_optimizer(
                "adam",
                learning_rate=settings.learning_rate,
                num_steps=settings.steps,
                weight_decay=decay,
            )
            for decay in settings.weight_decays
        }
        options = {"normalization": dataset.normalization, "augment": False}
        self._steps = {
            (dropout, decay): make_train_step(create(dropout), optimizer, **options)
            for dropout in settings.dropouts
            for decay, optimizer in self._optimizers.items()
        }

    def measure(self, case: Case) -> TrainedNetwork:
        """Trains a network and measures its last layer.

        The channels are measured on the network's first training images, as many as the smallest
        size has.
        """
        dataset, settings = self._dataset, self._settings
        order = epoch_order(len(dataset.train_images), seed=case.seed, epoch=0)[: case.size]
        images, labels = dataset.train_images[order], dataset.train_labels[order]
        variables = self._train(case, images, labels)
        train_accuracy = self._evaluate(variables, images, labels)
        test_accuracy = self._evaluate(variables, dataset.test_images, dataset.test_labels)
        few = slice(min(settings.sizes))  # the same number for all: overlap depends on it
        measured = dataset._replace(train_images=images[few], train_labels=labels[few])
        last = list(layer_shapes(self._predict, variables, images, site="reported"))[-1]
        config = settings.overlap_config
        layers = measure_layers(self._predict, variables, measured, config, layers=(last,))
        return TrainedNetwork(
            **case._asdict(),
            train_accuracy=train_accuracy,
            test_accuracy=test_accuracy,
            gap=train_accuracy - test_accuracy,
            measures=layers[last],
        )

    def _train(self, case: Case, images: Any, labels: Any) -> dict:
        settings = self._settings
        init_key, train_key = jax.random.split(jax.random.key(case.seed))
        start = self._init(init_key, np.zeros((1, *images.shape[1:]), np.float32), train=False)
        state = start_state(self._optimizers[case.weight_decay], train_key, start)
        step = self._steps[case.dropout, case.weight_decay]
        losses = []
        for rows in batches(case, settings.batch_size, settings.steps):
            state, metrics = step(state, Batch(images[rows], labels[rows]))
            losses.append(metrics.loss)
        if broken := first_not_finite(jax.device_get(losses)):
            raise Diverged(f"{case}: the loss is {broken[1]} at step {broken[0]}")
        return state.variables


def batches(case: Case, batch_size: int, steps: int) -> Iterator[np.ndarray]:
    """Rows of every batch, epoch after epoch; the ragged last one of an epoch is left out."""
    a_pass = case.size // batch_size
    for step in range(steps):
        epoch, index = divmod(step, a_pass)
        if index == 0:
            order = epoch_order(case.size, seed=case.seed, epoch=epoch + 1)
        yield order[index * batch_size : (index + 1) * batch_size]
