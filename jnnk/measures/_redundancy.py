"""Redundancy of a layer: how much its channels' neighbourhoods repeat each other."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Real

from jnnk._core import typed_jax
from jnnk._core.arrays import ArrayLike
from jnnk.graphs import NNKGraph
from jnnk.measures._neighborhoods import (
    Neighborhoods,
    check_channels,
    split_blocks,
    strengths_of,
)

_BLOCK = 128  # images compared at once


class RedundancyCurve(NamedTuple):
    """How the union of neighbourhoods grows with the number of channels, chosen greedily.

    Attributes:
        order: (C,), the channels in the order of choice: always the one that adds the most
            neighbours (summed over images), the lowest number among equals.
        coverage: (C,), share of the whole layer's neighbours, ``sum_n |union of the chosen
            channels' supports| / sum_n |union of all|``, after each choice; ends at 1. NaN where
            no channel has a neighbour.
    """

    order: Int[Array, " C"]
    coverage: Float[Array, " C"]


@typed_jax.jit
def redundancy(graph: NNKGraph) -> Float[Array, ""]:
    """Redundancy of a layer: how far its channels' neighbourhoods repeat each other.

    For image n let ``s_c`` be the sizes of the supports that are not empty, C' of them, and u the
    size of their union. Then

    ``R(n) = (1 - u / sum_c s_c) * C' / (C' - 1)``,

    0 when they are disjoint (``u = sum_c s_c``), 1 when they are equal (``u = sum_c s_c / C'``).
    The redundancy is the mean of R over images. Empty neighbourhoods (dead channels) take no
    part; images with fewer than two others are left out. Channels that are silent for the same
    images repeat each other there, see `jnnk.channel_overlap`.

    Args:
        graph: leading axis C: indices and weights of shape (C, Q, K).

    Returns:
        (); NaN where no image has two neighbourhoods to compare.

    Raises:
        ValueError: for a graph that has not three axes.
    """
    value, compared = _values(graph)
    return jnp.mean(value, where=compared)


@typed_jax.jit
def redundancy_by_image(graph: NNKGraph) -> Float[Array, " Q"]:
    """The redundancy ``R(n)`` of each image, of which `redundancy` is the mean.

    Args:
        graph: leading axis C: indices and weights of shape (C, Q, K).

    Returns:
        (Q,); NaN for images with fewer than two neighbourhoods that are not empty.

    Raises:
        ValueError: for a graph that has not three axes.
    """
    value, compared = _values(graph)
    return jnp.where(compared, value, jnp.nan).reshape(-1)[: graph.weights.shape[1]]


def _values(graph: NNKGraph) -> tuple[Array, Array]:
    """``R(n)`` and whether the image has two neighbourhoods to compare, (number of blocks, B)."""
    blocks = _support_blocks(graph)
    if blocks.strengths.shape[1] == 0:  # no channels, so that none can be taken
        nothing = jnp.zeros((len(blocks.strengths), _BLOCK), graph.weights.dtype)
        return nothing, nothing > 0

    def union_sizes(block: Neighborhoods) -> Array:
        def add(left: Array, channel: Array) -> tuple[Array, Array]:
            return _without(left, block, channel), left[channel].sum(0, jnp.int32)

        _, gains = jax.lax.scan(add, block.strengths, jnp.arange(block.strengths.shape[0]))
        return gains.sum(0)

    union = typed_jax.lax_map(union_sizes, blocks)
    sizes = blocks.strengths.sum(2, dtype=jnp.int32)
    total, present = sizes.sum(1), (sizes > 0).sum(1)
    dtype = graph.weights.dtype
    compared = present > 1
    union, total, present = (x.astype(dtype) for x in (union, total, present))
    share = 1 - union / jnp.where(compared, total, 1)
    return share * present / jnp.where(compared, present - 1, 1), compared


@typed_jax.jit
def redundancy_curve(
    graph: NNKGraph, *, weights: Real[ArrayLike, " C"] | None = None
) -> RedundancyCurve:
    """Greedy choice of channels whose neighbourhoods together cover those of the layer.

    Args:
        graph: leading axis C: indices and weights of shape (C, Q, K).
        weights: (C,), not negative: the choice falls on the largest product with what a channel
            adds, instead of on what it adds.

    Returns:
        The order of choice and the coverage; see `channels_to_cover`. Without weights the greedy
        coverage with m channels is at least ``1 - 1/e`` of the best possible with m (coverage is
        submodular).

    Raises:
        ValueError: for a graph that has not three axes.
    """
    blocks = _support_blocks(graph)
    num_channels = graph.weights.shape[0]
    if num_channels == 0:
        return RedundancyCurve(jnp.zeros(0, jnp.int32), jnp.zeros(0, graph.weights.dtype))

    def choose(
        state: tuple[Array, Array], _: None
    ) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        left, chosen = state
        gains = left.sum((0, 2, 3), dtype=jnp.int32)
        value = gains if weights is None else gains.astype(weights.dtype) * weights
        best = jnp.argmax(jnp.where(chosen, -1, value))

        def without_best(block: tuple[Array, Neighborhoods]) -> Array:
            return _without(*block, best)

        left = typed_jax.lax_map(without_best, (left, blocks))
        return (left, chosen.at[best].set(True)), (best.astype(jnp.int32), gains[best])

    start = (blocks.strengths, jnp.zeros(num_channels, bool))
    _, (order, gains) = jax.lax.scan(choose, start, length=num_channels)
    covered = jnp.cumsum(gains).astype(graph.weights.dtype)
    return RedundancyCurve(order, jnp.where(covered[-1] > 0, covered / covered[-1], jnp.nan))


def channels_to_cover(
    curve: RedundancyCurve, shares: Float[ArrayLike, "..."] | Sequence[float] | float
) -> Int[Array, "..."]:
    """The smallest number of greedily chosen channels whose union reaches each share.

    Args:
        curve: from `redundancy_curve`.
        shares: (...) in (0, 1], such as 0.9, 0.95, 0.99.

    Returns:
        int32 (...), at most C; 0 where the layer has no neighbours at all.
    """
    shares = jnp.asarray(shares, curve.coverage.dtype)
    if not curve.coverage.size:
        return jnp.zeros(shares.shape, jnp.int32)
    # A share such as 0.9 reached exactly must count in spite of rounding.
    slack = 4 * typed_jax.finfo(curve.coverage.dtype).eps
    coverage = curve.coverage.reshape((1,) * shares.ndim + (-1,))
    short = coverage < shares[..., None] - slack
    return jnp.where(jnp.isnan(curve.coverage[-1]), 0, 1 + short.sum(-1, dtype=jnp.int32))


def _support_blocks(graph: NNKGraph) -> Neighborhoods:
    """The neighbourhoods in blocks of images, whose strengths are "is a neighbour"."""
    check_channels(graph)
    return split_blocks(graph.indices, graph.weights > 0, _BLOCK)


def _without(left: Array, block: Neighborhoods, number: Array) -> Array:
    """What is left of all channels' neighbours without those of one channel, bool (C, K, B).

    Args:
        left: bool (C, K, B), which neighbours were left before.
        block: `Neighborhoods` (C, K, B).
        number: int () of that channel.
    """
    channel = Neighborhoods(block.indices[number], block.strengths[number].astype(jnp.int8))
    return left & (strengths_of(block.indices, channel) == 0)
