"""``jnnk train --stop``: when a training ends early, by one of three rules."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np

from jnnk._core.errors import InputError
from jnnk.data import Dataset, first_images
from jnnk.graphs import channelwise_nnk_graph, cosine, nnk_graph
from jnnk.jobs.fit import Monitor, Watched
from jnnk.jobs.networks import network_layers, network_of
from jnnk.measures import loo_error
from jnnk.network import capture
from jnnk.runs.records import EpochMetrics
from jnnk.training import (
    Model,
    TrainState,
    freeze,
    make_evaluate,
    make_predict,
    start_patience,
    trainable_masks,
    update_patience,
)

# The settings of arXiv 2107.12972, on fewer images and maps averaged to at most 8 x 8.
_IMAGES, _NEIGHBORS, _SIZE = 1000, 25, 8
_HELD_OUT = 5  # one image in so many is for validation

Error = Callable[[TrainState], dict[str, np.ndarray]]


def stopping(
    name: str | None, model: Model, dataset: Dataset, *, patience: int
) -> tuple[Dataset, Monitor | None]:
    """What to train on and the monitor that stops by a rule of ``STOPPING``, None for never.

    Patience is in epochs without a smaller error. ``"validation"`` holds out a fifth of the
    training images. ``"channel-nnk"`` also freezes the channels, in the state's ``trainable``; see
    :func:`jnnk.training.freezable`.

    Raises:
        InputError: for an unknown name.
    """
    if name is None:
        return dataset, None
    if name not in STOPPING:
        raise InputError(f"--stop: expected one of {', '.join(STOPPING)}, got {name!r}")
    dataset, error = STOPPING[name](model, dataset)

    network = network_of(model, dataset)

    def monitor(state: TrainState, epochs: Sequence[EpochMetrics]) -> tuple[TrainState, Watched]:
        errors = {layer: tuple(each.tolist()) for layer, each in error(state).items()}
        history = [epoch.errors or {} for epoch in epochs] + [errors]
        stopped = {layer: _stopped([each[layer] for each in history], patience) for layer in errors}
        if name == "channel-nnk":
            trainable = trainable_masks(state.params, stopped, network=network)
            state = freeze(state, trainable)
        return state, Watched(
            errors=errors,
            stopped_channels={layer: int(each.sum()) for layer, each in stopped.items()},
            stopped=bool(all(each.all() for each in stopped.values())),
        )

    return dataset, monitor


def num_trained_on(name: str | None, dataset: Dataset) -> int:
    """How many training images a stopping rule, or none, leaves to train on."""
    num_images = len(dataset.train_images)
    return num_images - num_images // _HELD_OUT if name == "validation" else num_images


def _stopped(history: list, patience: int) -> np.ndarray:
    """Which are out of patience after a history of errors, each (C,)."""
    state = start_patience(np.shape(history[0]))
    for errors in history:
        errors = np.asarray(errors, np.float32)  # None is NaN, which jax.numpy refuses
        state = update_patience(state, jnp.asarray(errors), patience=patience)
    return np.asarray(state.stopped)


def _channel_nnk(model: Model, dataset: Dataset) -> tuple[Dataset, Error]:
    """The leave-one-out error of each channel of each conv that has kernels of its own.

    The steps of a scan share a leaf, of which a part cannot be frozen: they train to the end.
    """
    convs = {conv.name for conv in network_of(model, dataset).convs}
    layers = [layer for layer in network_layers(model, dataset) if layer in convs]
    if not layers:
        raise InputError(
            "--stop channel-nnk: every convolution of the network runs in a scan, where channels "
            "cannot stop one by one; use --stop nnk"
        )
    return dataset, _loo_errors(model, dataset, layers, channelwise_nnk_graph, flat=False)


def _nnk(model: Model, dataset: Dataset) -> tuple[Dataset, Error]:
    """The leave-one-out error of the last layer as a whole (DeepNNK)."""
    last = list(network_layers(model, dataset))[-1:]
    return dataset, _loo_errors(model, dataset, last, nnk_graph, flat=True)


def _validation(model: Model, dataset: Dataset) -> tuple[Dataset, Error]:
    """The error on images held out of the training."""
    kept = num_trained_on("validation", dataset)
    evaluate = make_evaluate(model, normalization=dataset.normalization)
    images, labels = dataset.train_images[kept:], dataset.train_labels[kept:]

    def errors(state: TrainState) -> dict[str, np.ndarray]:
        return {"validation": np.array([1 - evaluate(state.variables, images, labels)])}

    return first_images(dataset, train=kept), errors


def _loo_errors(
    model: Model, dataset: Dataset, layers: list[str], graph_of: Callable, *, flat: bool
) -> Error:
    predict = make_predict(model, normalization=dataset.normalization)
    images, labels = dataset.train_images[:_IMAGES], dataset.train_labels[:_IMAGES]
    num_classes = len(dataset.class_names)

    def errors(state: TrainState) -> dict[str, np.ndarray]:
        found = {}
        for layer in capture(
            predict,
            state.variables,
            images,
            layers=layers,
            site="reported",
            pooling="mean",
            size=_SIZE,
        ):
            values = layer.values.reshape(len(images), -1) if flat else layer.values
            graph = graph_of(
                jnp.asarray(values),
                num_neighbors=min(_NEIGHBORS, len(images) - 1),
                similarity=cosine(),
            )
            found[layer.name] = np.atleast_1d(loo_error(graph, labels, num_classes))
        return found

    return errors


STOPPING = {"channel-nnk": _channel_nnk, "nnk": _nnk, "validation": _validation}
"""Rule -> ``(model, dataset) -> (data to train on, errors of a state)``."""
