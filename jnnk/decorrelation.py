"""What users compare the overlap penalty with: correlation and linear CKA between channels."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from jnnk.baselines import standardised
from jnnk.channel_pairs import channel_points, mean_of_pairs, pairs_of


@partial(jax.jit, static_argnames="num_channels")
def decorrelation_penalty(
    activations: Array, *, num_channels: int | None = 64, key: Array | None = None
) -> Array:
    """Mean squared correlation of every two channels, over all images and positions of a batch.

    Args:
        activations: (B, H, W, C) or (B, D, C), see `jnnk.channel_pairs.channel_points`.
        num_channels: the most channels compared.
        key: PRNG key that draws them where the layer has more.

    Returns:
        () in [0, 1]; dead channels are left out, 0 where fewer than two are live.

    Raises:
        ValueError: on wrong shapes, or without a key where channels are drawn.
    """
    points, _ = channel_points(activations, num_channels=num_channels, key=key)
    # Each channel on a scale of its own, or the squares of a faint one underflow.
    rows = jax.vmap(standardised)(points.reshape(points.shape[0], -1, 1))[:, :, 0]
    covariance = _product(rows, rows.T)
    variance = jnp.diagonal(covariance)
    live = variance > 0
    safe = jnp.where(live, variance, 1)
    return mean_of_pairs(jnp.square(covariance) / safe[:, None] / safe, pairs_of(live))


@partial(jax.jit, static_argnames="num_channels")
def cka_penalty(
    activations: Array, *, num_channels: int | None = 64, key: Array | None = None
) -> Array:
    """Mean linear centred kernel alignment of every two channels, see `jnnk.baselines.linear_cka`.

    Computed from the channels' B x B matrices of inner products: ``|Y'X|_F^2 = <XX', YY'>_F``.

    Args:
        activations: (B, H, W, C) or (B, D, C), see `jnnk.channel_pairs.channel_points`.
        num_channels: the most channels compared.
        key: PRNG key that draws them where the layer has more.

    Returns:
        () in [0, 1]; dead channels are left out, 0 where fewer than two are live.

    Raises:
        ValueError: on wrong shapes, or without a key where channels are drawn.
    """
    points, _ = channel_points(activations, num_channels=num_channels, key=key)
    centred = jax.vmap(standardised)(points)
    inner = _product(centred, centred.mT).reshape(points.shape[0], -1)
    squares = jnp.sum(jnp.square(inner), axis=1)
    live = squares > 0
    unit = inner / jnp.sqrt(jnp.where(live, squares, 1))[:, None]
    return mean_of_pairs(_product(unit, unit.T), pairs_of(live))


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
