"""Public networks epoch by epoch: errors of their labels' interpolation, and their channels."""

import concurrent.futures
import pathlib
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax.linen import Module
from jax import Array

from jnnk.data import Dataset
from jnnk.experiments.overlap_settings import Settings, study_layers
from jnnk.experiments.runner import run_cases
from jnnk.graphs import cosine, nnk_graph
from jnnk.measures import error_rate, knn_graph, label_interpolation
from jnnk.network import capture, layer_shapes
from jnnk.runs.json_files import read_or_measure
from jnnk.runs.progress import Progress
from jnnk.runs.study_records import EpochErrors, NetworkEpoch
from jnnk.training import make_predict

_CAPTURE_BATCH = 500


class Trajectory(NamedTuple):
    """A network at the end of each epoch of its training."""

    name: str  # shown in tables
    # a plain ConvNet whose dense layer `fc` reads its last activations, pooled (max)
    model: Module
    epochs: int  # how many there are
    load: Callable[[int], dict]  # `(epoch) -> variables`, epochs from 0


def measure_epochs(
    folder: pathlib.Path,
    networks: list[Trajectory],
    dataset: Dataset,
    settings: Settings,
    progress: Progress,
) -> tuple[NetworkEpoch, ...]:
    """A record per network and epoch; those that have their file in the folder are left out.

    The data set is what the networks were trained on, with the normalisation that they want.
    """
    predicts = {
        network.name: make_predict(network.model, normalization=dataset.normalization)
        for network in networks
    }

    def measured(case: tuple[Trajectory, int]) -> NetworkEpoch:
        network, epoch = case
        measure = partial(measure_epoch, network, predicts[network.name], epoch, dataset, settings)
        path = folder / network.name / f"epoch{epoch:04d}.json"
        errors = read_or_measure(path, measure, kind=EpochErrors)
        return NetworkEpoch(network=network.name, epoch=epoch + 1, errors=errors)

    return run_cases(
        "public networks",
        [(network, epoch) for network in networks for epoch in range(network.epochs)],
        measured,
        unit="epoch",
        progress=progress,
        show=lambda record: {
            "test_error": record.errors.test_error, "nnk_error": record.errors.nnk_error
        },
    )  # fmt: skip


def measure_epoch(
    network: Trajectory, predict: Callable, epoch: int, dataset: Dataset, settings: Settings
) -> EpochErrors:
    """One network at one epoch; ``predict`` is the same for all epochs."""
    variables = network.load(epoch)
    last = list(layer_shapes(predict, variables, dataset.train_images, site="reported"))[-1]

    def features(images: np.ndarray, labels: np.ndarray) -> _Labelled:
        options = {
            "site": "reported",
            "pooling": "max",
            "size": settings.label_side,
            "batch_size": _CAPTURE_BATCH,
        }
        (layer,) = capture(predict, variables, images, layers=[last], **options)
        return _Labelled(jnp.asarray(layer.values.reshape(len(images), -1)), labels)

    train = features(dataset.train_images, dataset.train_labels)
    test = features(dataset.test_images, dataset.test_labels)
    loo, held_out = _interpolation_errors(
        train, test, num_classes=len(dataset.class_names), settings=settings
    )
    dense = variables["params"]["fc"]
    train_error, test_error = (_dense_error(dense, points) for points in (train, test))
    del train, test
    layers = study_layers(predict, variables, dataset, settings)
    of_last = layers[-1].measures
    return EpochErrors(
        train_error=train_error,
        test_error=test_error,
        gap=test_error - train_error,
        knn_error=held_out.knn,
        nnk_error=held_out.nnk,
        knn_loo_error=loo.knn,
        loo_error=loo.nnk,
        overlap=of_last.overlap.mean,
        redundancy=of_last.redundancy.mean,
        mle_dimension=of_last.mle_dimension.mean,
        layers=layers,
    )


class _Labelled(NamedTuple):
    """Points and what they are."""

    points: Array  # (N, D)
    labels: np.ndarray  # (N,)


class _Errors(NamedTuple):
    """Shares of queries whose labels are interpolated wrongly."""

    knn: float  # weighted kNN
    nnk: float  # NNK interpolation, on the same candidates


def _interpolation_errors(
    train: _Labelled, test: _Labelled, *, num_classes: int, settings: Settings
) -> tuple[_Errors, _Errors]:
    """Errors of the first training points, left out one by one, and of all test points."""

    def errors(queries: _Labelled, exclude: np.ndarray) -> _Errors:
        graph = nnk_graph(
            train.points, queries=queries.points, exclude=exclude, similarity=cosine(),
            num_neighbors=settings.label_neighbors,
        )  # fmt: skip
        both = (knn_graph(graph, similarity=cosine()), graph)
        found = (label_interpolation(each, train.labels, num_classes) for each in both)
        return _Errors(*(float(error_rate(labels, queries.labels)) for labels in found))

    left_out = np.arange(min(settings.label_queries, len(train.labels)), dtype=np.int32)
    first = _Labelled(train.points[: len(left_out)], train.labels[: len(left_out)])
    with concurrent.futures.ThreadPoolExecutor(1) as beside:  # XLA runs most of it on one core
        of_test = beside.submit(errors, test, np.full(len(test.labels), -1, np.int32))
        return errors(first, left_out), of_test.result()


def _dense_error(dense: dict, features: _Labelled) -> float:
    """Share of points that a network's dense layer takes for another class."""
    logits = features.points @ dense["kernel"] + dense["bias"]
    return float(np.mean(np.asarray(logits.argmax(1)) != features.labels))
