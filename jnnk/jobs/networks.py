"""A run's network as the library takes any: a function of variables and images, and as read."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jnnk._core.errors import InputError
from jnnk.data import Dataset
from jnnk.network import Network, layer_shapes, read
from jnnk.runs.progress import Progress
from jnnk.training import Model, make_predict


def logits_of(model: Model) -> Callable[[Any, jax.Array], jax.Array]:
    """``(variables, images) -> logits`` of a model that also returns activations."""

    def logits(variables: Any, images: jax.Array) -> jax.Array:
        return model.apply(variables, images, train=False)[0]

    return logits


def abstract_variables(model: Model, dataset: Dataset) -> dict:
    """The shapes and dtypes of a model's variables for these images, without making them."""
    return _abstract_variables(model, dataset.train_images.shape[1:])


def network_layers(model: Model, dataset: Dataset) -> dict[str, tuple[int, ...]]:
    """Shape (H, W, C) of every layer's activations, by name, without running the network."""
    predict = make_predict(model, normalization=dataset.normalization)
    return layer_shapes(
        predict, abstract_variables(model, dataset), dataset.train_images, site="reported"
    )


def network_of(model: Model, dataset: Dataset) -> Network:
    """The network that answers to the images of a data set; read once by each process."""
    return _read(model, dataset.train_images.shape[1:])


def told_network(model: Model, dataset: Dataset, progress: Progress) -> Network:
    """The network whose kernels are to be pruned, after a note of each convolution left whole.

    Raises:
        InputError: if all kernels are 1x1, which stay whole, or there is none.
    """
    network = network_of(model, dataset)
    if all(math.prod(conv.kernel_size) == 1 for conv in network.convs):
        raise InputError(
            "the network has no kernels of more than one position, which are what is pruned; "
            "jnnk inspect shows what was read of it"
        )
    return told_channels(model, dataset, progress)


def told_channels(model: Model, dataset: Dataset, progress: Progress) -> Network:
    """The network whose channels are to be pruned, after a note of each convolution left whole."""
    network = network_of(model, dataset)
    for each in network.left_out:
        progress.note(f"not pruned: {each.what}: {each.reason}")
    return dataclasses.replace(network, left_out=())


def _abstract_variables(model: Model, image_shape: tuple[int, ...]) -> dict:
    init = functools.partial(model.init, train=False)
    return jax.eval_shape(init, jax.random.key(0), _image(image_shape))


@functools.lru_cache(maxsize=8)
def _read(model: Model, image_shape: tuple[int, ...]) -> Network:
    return read(logits_of(model), _abstract_variables(model, image_shape), _image(image_shape))


def _image(shape: tuple[int, ...]) -> Any:
    return jax.ShapeDtypeStruct((1, *shape), jnp.float32)
