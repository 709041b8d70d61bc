"""Baselines of the overlap penalty: correlation and linear CKA between channels."""

import math

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jnnk._core import typed_jax
from jnnk._core.arrays import ArrayLike
from jnnk._core.precision import contract
from jnnk.measures._baselines import standardised, without_bias
from jnnk.penalties._channel_pairs import channel_points, mean_of_pairs, pairs_of


@typed_jax.jit(static_argnames="num_channels")
def decorrelation_penalty(
    activations: Float[ArrayLike, "B ... C"],
    *,
    num_channels: int | None = 64,
    key: Array | None = None,
) -> Float[Array, ""]:
    """Mean squared correlation of every two channels, over all images and positions of a batch.

    Args:
        activations: (B, H, W, C) or (B, D, C).
        num_channels: the most channels compared.
        key: PRNG key that draws them where the layer has more.

    Returns:
        In [0, 1]; dead channels are left out, 0 where fewer than two are live.

    Raises:
        ValueError: on wrong shapes, or without a key where channels are drawn.
    """
    points, _ = channel_points(activations, num_channels=num_channels, key=key)
    # Each channel on a scale of its own, or the squares of a faint one underflow.
    width, *sizes = points.shape
    rows = jax.vmap(standardised)(points.reshape(width, math.prod(sizes), 1))[:, :, 0]
    covariance = contract("cp,dp->cd", rows, rows)
    variance = jnp.diagonal(covariance)
    live = variance > 0
    safe = jnp.where(live, variance, 1)
    return mean_of_pairs(jnp.square(covariance) / safe[:, None] / safe[None], pairs_of(live))


@typed_jax.jit(static_argnames="num_channels")
def cka_penalty(
    activations: Float[ArrayLike, "B ... C"],
    *,
    num_channels: int | None = 64,
    key: Array | None = None,
) -> Float[Array, ""]:
    """Mean debiased linear CKA of every two channels, see `jnnk.measures.linear_cka`.

    0 on average for independent channels, and a little below in some batches. Computed from the
    channels' B x B Gram matrices, which take ``4 B^2`` bytes per channel.

    Args:
        activations: (B, H, W, C) or (B, D, C).
        num_channels: the most channels compared.
        key: PRNG key that draws them where the layer has more.

    Returns:
        In [-1, 1]. Channels that are constant, or in all images but one, are left out; 0 where
        fewer than two are left, and for batches of fewer than 4 images.

    Raises:
        ValueError: on wrong shapes, or without a key where channels are drawn.
    """
    points, _ = channel_points(activations, num_channels=num_channels, key=key)
    if points.shape[1] < 4:
        return jnp.zeros((), points.dtype)
    centred = jax.vmap(standardised)(points)
    inner, live = without_bias(contract("cnd,cmd->cnm", centred, centred))
    inner = inner.reshape(len(inner), math.prod(inner.shape[1:]))
    squares = jnp.sum(jnp.square(inner), axis=1)
    unit = inner / jnp.sqrt(jnp.where(live, squares, 1))[:, None]
    return mean_of_pairs(contract("cp,dp->cd", unit, unit), pairs_of(live))
