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

from jnnk.activations import capture, layer_shapes
from jnnk.data import Dataset
from jnnk.experiments.overlap_settings import Settings, study_layers
from jnnk.experiments.runner import run_cases
from jnnk.graphs import cosine, nnk_graph
from jnnk.measures import error_rate, knn_graph, label_interpolation
from jnnk.runs.folder import kept
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
    """A record a network and epoch; those that have their file in the folder are left out.

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
        errors = kept(path, measure, kind=EpochErrors)
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
    last = list(layer_shapes(predict, variables, dataset.train_images))[-1]

    def features(images):
        options = {"pooling": "max", "size": settings.label_side, "batch_size": _CAPTURE_BATCH}
        (layer,) = capture(predict, variables, images, layers=[last], **options)
        return jnp.asarray(layer.values.reshape(len(images), -1))

    train, test = features(dataset.train_images), features(dataset.test_images)
    labels = dataset.train_labels
    left_out = np.arange(min(settings.label_queries, len(labels)), dtype=np.int32)
    interpolated = partial(
        _interpolation_errors, train, labels, len(dataset.class_names), settings.label_neighbors
    )
    with concurrent.futures.ThreadPoolExecutor(1) as beside:  # XLA runs most of it on one core
        on_test = beside.submit(
            interpolated, test, dataset.test_labels, np.full(len(test), -1, np.int32)
        )
        on_train = interpolated(train[: len(left_out)], labels[: len(left_out)], left_out)
        on_test = on_test.result()
    dense = variables["params"]["fc"]
    train_error, test_error = (
        float(np.mean(np.asarray((x @ dense["kernel"] + dense["bias"]).argmax(1)) != truth))
        for x, truth in ((train, labels), (test, dataset.test_labels))
    )
    del train, test
    layers = study_layers(predict, variables, dataset, settings)
    of_last = layers[-1].measures
    return EpochErrors(
        train_error=train_error,
        test_error=test_error,
        gap=test_error - train_error,
        knn_error=on_test[0],
        nnk_error=on_test[1],
        knn_loo_error=on_train[0],
        loo_error=on_train[1],
        overlap=of_last.overlap.mean,
        redundancy=of_last.redundancy.mean,
        mle_dimension=of_last.mle_dimension.mean,
        layers=layers,
    )


def _interpolation_errors(
    points: Array,
    labels: np.ndarray,
    num_classes: int,
    num_neighbors: int,
    queries: Array,
    truth: np.ndarray,
    exclude: np.ndarray,
) -> tuple[float, float]:
    """Errors of weighted kNN and of NNK interpolation, on the same candidates."""
    graph = nnk_graph(
        points, queries=queries, exclude=exclude, num_neighbors=num_neighbors, similarity=cosine()
    )
    knn, nnk = (
        float(error_rate(label_interpolation(used, labels, num_classes), truth))
        for used in (knn_graph(graph, similarity=cosine()), graph)
    )
    return knn, nnk
