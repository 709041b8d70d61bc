"""A run's network as the library takes any: a function of variables and images, and its wiring."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax.linen import Module
from jax import Array

from jnnk.data import Dataset
from jnnk.network import Network, read


def logits_of(model: Module) -> Callable[[Any, Array], Array]:
    """``(variables, images) -> logits`` of a model that also returns activations."""

    def logits(variables: Any, images: Array) -> Array:
        return model.apply(variables, images, train=False)[0]

    return logits


def network_of(model: Module, dataset: Dataset) -> Network:
    """A model as `jnnk.network.read` reads it, for the images of a data set."""
    return read(logits_of(model), abstract_variables(model, dataset), _image(dataset))


def abstract_variables(model: Module, dataset: Dataset) -> dict:
    """The shapes and dtypes of a model's variables for these images, without making them."""
    return jax.eval_shape(partial(model.init, train=False), jax.random.key(0), _image(dataset))


def _image(dataset: Dataset) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, *dataset.train_images.shape[1:]), jnp.float32)
