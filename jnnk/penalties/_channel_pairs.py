"""What the penalties on pairs of channels share: the channels compared, and the mean over pairs."""

import math

import jax
import jax.numpy as jnp
from jax import Array

from jnnk._core.arrays import ArrayLike
from jnnk._core.precision import working_dtype
from jnnk._core.whole_numbers import whole_number


def channel_points(
    activations: ArrayLike, *, num_channels: int | None = None, key: Array | None = None
) -> tuple[Array, Array]:
    """A batch as each channel sees it.

    Args:
        activations: (B, H, W, C) or (B, D, C) floating; half precisions become float32.
        num_channels: the most channels taken; None for all. Of a wider layer ``key`` draws them.
        key: PRNG key; needed where channels are drawn.

    Returns:
        Points (C', B, D) and int32 (C',), which of the layer's channels they are of.

    Raises:
        ValueError: on wrong shapes, or without a key where channels are drawn.
    """
    activations = jnp.asarray(activations)
    if activations.ndim not in (3, 4):
        raise ValueError(
            f"activations: expected (B, H, W, C) or (B, D, C), got shape {activations.shape}"
        )
    if not jnp.issubdtype(activations.dtype, jnp.floating):
        raise ValueError(f"activations: expected a floating dtype, got {activations.dtype}")
    if num_channels is not None:
        num_channels = whole_number("num_channels", num_channels)
    width = activations.shape[-1]
    channels = jnp.arange(width, dtype=jnp.int32)
    if num_channels is not None and num_channels < width:
        if num_channels < 2 or key is None:
            raise ValueError(
                f"num_channels={num_channels} of {width} channels: expected at least 2, and a key "
                "that draws them"
            )
        channels = jax.random.permutation(key, channels)[:num_channels]
        activations = jnp.take(activations, channels, axis=-1)
    num_images, *sizes, width = activations.shape
    points = activations.reshape(num_images, math.prod(sizes), width)
    return jnp.moveaxis(points, -1, 0).astype(working_dtype(activations.dtype)), channels


def pairs_of(live: Array) -> Array:
    """Which pairs are of two different live channels: bool (C,) to bool (C, C)."""
    return live[:, None] & live[None] & ~jnp.eye(live.shape[0], dtype=bool)


def mean_of_pairs(values: Array, compared: Array) -> Array:
    """Mean of the values (C, C) of the pairs compared, () and 0 where there is none."""
    number = jnp.sum(compared).astype(values.dtype)
    return jnp.sum(jnp.where(compared, values, 0)) / jnp.maximum(number, 1)
