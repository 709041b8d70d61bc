"""What a command refuses, or fits to a small data set, before it makes or changes anything."""

import math
from collections.abc import Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jnnk._core.errors import InputError
from jnnk._core.memory import gib, machine_memory
from jnnk.data import Dataset
from jnnk.jobs.networks import abstract_variables, network_layers
from jnnk.jobs.overlap import chosen_layers
from jnnk.jobs.stopping import num_trained_on
from jnnk.jobs.train import make_penalty
from jnnk.runs.settings import ChannelConfig, OverlapConfig, TrainConfig
from jnnk.training import Model


class Fitted(NamedTuple):
    """Settings that fit a data set."""

    config: Any  # the settings
    notes: tuple[str, ...] = ()  # a sentence for every default that had to give way


def fit_training(
    config: TrainConfig, dataset: Dataset, *, typed: Collection[str], shards: int = 1
) -> Fitted:
    """Fits the batch to the training images, which so many shards of devices share evenly.

    Raises:
        InputError: if a batch that was asked for (is among those ``typed``) is larger than the
            training set, or there are fewer images than devices.
    """
    num_images = num_trained_on(config.stop, dataset)
    if config.batch_size <= num_images:
        return Fitted(config)
    few = f"the {num_images} training images of {dataset.name}"
    if "batch_size" in typed:
        raise InputError(f"--batch-size {config.batch_size} is larger than {few}")
    batch_size = num_images - num_images % shards
    if not batch_size:
        raise InputError(f"--mesh: {few} are fewer than the {shards} devices that share a batch")
    note = f"batch size {batch_size} for {config.batch_size}: as many as {few} allow"
    return Fitted(config._replace(batch_size=batch_size), (note,))


def fit_graphs(
    config: OverlapConfig | ChannelConfig,
    dataset: Dataset,
    *,
    typed: Collection[str],
    found: Collection[str] = (),
) -> Fitted:
    """Fits images and neighbours to the number of training images.

    The settings that the folder's results were ``found`` to be made with stay: a number of images
    is one of at most so many.

    Raises:
        InputError: if images that were asked for (are among those ``typed``) are more than there
            are, or neighbours as many as the images.
    """
    available, notes = len(dataset.train_images), []
    if config.images > available and "images" in typed:
        raise InputError(
            f"--images {config.images}: {dataset.name} has only {available} training images"
        )
    if config.images > available and "images" not in found:
        notes.append(f"{available} images for {config.images}: {dataset.name} has no more to train")
        config = config._replace(images=available)
    num_images = min(config.images, available)
    most = num_images - 1
    if config.neighbors <= most or "neighbors" in found:
        return Fitted(config, tuple(notes))
    if "neighbors" in typed:
        raise InputError(
            f"--neighbors {config.neighbors}: each of {num_images} images has only {most} others"
        )
    note = f"{most} neighbours for {config.neighbors}: each of {num_images} images has no more"
    return Fitted(config._replace(neighbors=most), (*notes, note))


def check_layers(patterns: tuple[str, ...], model: Model, dataset: Dataset) -> None:
    """Refuses patterns that match no layer, without running the network."""
    chosen_layers(network_layers(model, dataset), patterns)


def check_memory(config: TrainConfig, model: Model, dataset: Dataset) -> None:
    """Refuses a training for which this machine is too small, where a CPU trains.

    Counted is what cannot be spared: weights, gradients and one moment of every parameter, and a
    batch's activations. The system would kill a process that takes more memory than there is; an
    accelerator says so itself.

    Raises:
        InputError: with what it takes and what there is.
    """
    if jax.default_backend() != "cpu":
        return
    params = jax.tree.leaves(abstract_variables(model, dataset)["params"])
    num_params, batch = sum(leaf.size for leaf in params), 0
    if config.epochs:
        outputs = network_layers(model, dataset).values()
        itemsize = jnp.dtype(getattr(model, "dtype", jnp.float32)).itemsize
        share = config.batch_size // jax.process_count()
        batch = share * itemsize * sum(math.prod(shape) for shape in outputs)
    needed = 4 * num_params * (3 if config.epochs else 1) + batch
    if needed > (available := machine_memory()):
        raise InputError(
            f"--model {config.model}: {num_params:,} parameters and {gib(batch)} of activations a "
            f"batch take {gib(needed)} or more, this machine has {gib(available)}: a smaller "
            "network, smaller images or a smaller --batch-size"
        )


def check_training(config: TrainConfig, model: Model, dataset: Dataset) -> None:
    """Refuses a regulariser that cannot be computed, without running the network.

    Raises:
        InputError: for patterns that match no layer, or a batch that is too small for the penalty.
    """
    penalty = make_penalty(config)
    if penalty is None:
        return
    shapes = network_layers(model, dataset)
    chosen_layers(shapes, config.regularizer_layers, option="--regularizer-layers")
    activations = {
        name: jax.ShapeDtypeStruct((config.batch_size, *shape), jnp.float32)
        for name, shape in shapes.items()
    }
    labels = jax.ShapeDtypeStruct((config.batch_size,), jnp.int32)
    try:
        jax.eval_shape(penalty, activations, labels, jax.random.key(0))
    except ValueError as error:
        raise InputError(f"--regularizer {config.regularizer}: {error}") from None
