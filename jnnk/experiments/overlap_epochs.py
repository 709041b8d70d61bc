"""Public networks epoch by epoch: errors of their labels' interpolation, and their channels."""

import concurrent.futures
import pathlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from jnnk.activations import capture, layer_shapes
from jnnk.data import Dataset
from jnnk.experiments.overlap_settings import Settings, measure_layers
from jnnk.experiments.parts import kept
from jnnk.graphs import cosine, nnk_graph
from jnnk.measures import error_rate, knn_graph, label_interpolation
from jnnk.runs.progress import Progress
from jnnk.training import Model, make_predict

_CAPTURE_BATCH = 500


class Trajectory(NamedTuple):
    """A network at the end of each epoch of its training.

    Attributes:
        name: shown in tables.
        model: a plain ConvNet whose dense layer ``fc`` reads its last activations, pooled (max).
        epochs: how many there are.
        load: ``(epoch) -> variables``, epochs from 0.
    """

    name: str
    model: Model
    epochs: int
    load: Callable[[int], dict]


def measure_epochs(
    folder: pathlib.Path,
    networks: list[Trajectory],
    dataset: Dataset,
    settings: Settings,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Measures every network at every epoch, leaving out what is measured already.

    Args:
        folder: gets a file a network and epoch.
        networks: the networks.
        dataset: the images they were trained on, normalised as they want it.
        settings: what to measure.
        progress: shows how far it is.

    Returns:
        A record a network and epoch; see :func:`measure_epoch`.
    """
    records = []
    total = sum(network.epochs for network in networks)
    with progress.task("public networks", total=total, unit="epoch") as task:
        for network in networks:
            predict = make_predict(network.model, normalization=dataset.normalization)
            for epoch in range(network.epochs):
                measure = partial(measure_epoch, network, predict, epoch, dataset, settings)
                record = kept(folder / network.name / f"epoch{epoch:04d}.json", measure)
                records.append({"network": network.name, "epoch": epoch + 1, **record})
                task.advance(test_error=record["test_error"], nnk_error=record["nnk_error"])
    return records


def measure_epoch(
    network: Trajectory, predict: Callable, epoch: int, dataset: Dataset, settings: Settings
) -> dict[str, Any]:
    """One network at one epoch.

    Args:
        network: the network.
        predict: from :func:`jnnk.training.make_predict`, the same for all epochs.
        epoch: which.
        dataset: the images.
        settings: what to measure.

    Returns:
        Errors in [0, 1]: ``train_error`` and ``test_error`` of the network itself on all images,
        ``gap`` their difference; ``knn_error`` and ``nnk_error`` on all test images with the
        training images as points; ``knn_loo_error`` and ``loo_error``, the same leaving out
        training images one by one. ``overlap``, ``redundancy`` and ``mle_dimension`` of the last
        layer, and all layers' measures in ``layers``.
    """
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
    layers = measure_layers(predict, variables, dataset, settings)
    return {
        "train_error": train_error,
        "test_error": test_error,
        "gap": test_error - train_error,
        "knn_error": on_test[0],
        "nnk_error": on_test[1],
        "knn_loo_error": on_train[0],
        "loo_error": on_train[1],
        **{name: layers[-1][name] for name in ("overlap", "redundancy", "mle_dimension")},
        "layers": layers,
    }


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
