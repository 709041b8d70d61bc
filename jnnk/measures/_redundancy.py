"""Redundancy of a layer: how much its channels' neighbourhoods repeat each other."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int, Real

from jnnk._core import typed_jax
from jnnk._core.arrays import ArrayLike
from jnnk.graphs import NNKGraph
from jnnk.measures._neighborhoods import check_channels, degrees

# So many bits of an identifier tell its place among those that are marked at once: the table is one
# for all but the largest sets of images, and fits a second-level cache.
_BITS = 16


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
    return jnp.where(compared, value, jnp.nan)


def _values(graph: NNKGraph) -> tuple[Array, Array]:
    """``R(n)`` and whether the image has two neighbourhoods to compare, both (Q,)."""

    def union_size(identifiers: Array) -> Array:
        slots = jnp.arange(len(identifiers), dtype=jnp.int32)
        return (_representatives(identifiers) == slots).sum(dtype=jnp.int32)

    union = typed_jax.lax_map(union_size, _identifiers(graph))
    sizes = degrees(graph.weights)
    total, present = sizes.sum(0), (sizes > 0).sum(0)
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
    representatives = typed_jax.lax_map(_representatives, _identifiers(graph))
    num_channels, num_images, num_neighbors = graph.weights.shape
    if num_channels == 0:
        return RedundancyCurve(jnp.zeros(0, jnp.int32), jnp.zeros(0, graph.weights.dtype))
    representatives = representatives.reshape(num_images, num_channels, num_neighbors)
    factors = jnp.ones(num_channels, jnp.int32) if weights is None else jnp.asarray(weights)
    rows = jnp.arange(num_images)[:, None]

    def gain(covered: Array, channel: Array) -> Array:
        is_covered = covered.at[rows, representatives[:, channel]].get(mode="fill", fill_value=True)
        return (~is_covered).sum(dtype=jnp.int32)

    def choose(carry: _Choice, _: Array) -> tuple[_Choice, tuple[Array, Array]]:
        covered = carry.covered

        def is_outdated(carry: tuple[Array, Array]) -> Array:
            gains, is_current = carry
            return ~is_current[_best(gains, factors)]

        def update(carry: tuple[Array, Array]) -> tuple[Array, Array]:
            gains, is_current = carry
            best = _best(gains, factors)
            return gains.at[best].set(gain(covered, best)), is_current.at[best].set(True)

        # What a channel adds never grows, so that the others' last known gains bound them.
        nothing = jnp.zeros(num_channels, bool)
        gains, _ = jax.lax.while_loop(is_outdated, update, (carry.gains, nothing))
        best = _best(gains, factors)
        covered = covered.at[rows, representatives[:, best]].set(True, mode="drop")
        return _Choice(gains.at[best].set(-1), covered), (best, gains[best])

    start = _Choice(
        gains=degrees(graph.weights).sum(1, dtype=jnp.int32),
        covered=jnp.zeros((num_images, num_channels * num_neighbors), bool),
    )
    _, (order, gains) = jax.lax.scan(choose, start, length=num_channels)
    added = jnp.cumsum(gains).astype(graph.weights.dtype)
    return RedundancyCurve(order, jnp.where(added[-1] > 0, added / added[-1], jnp.nan))


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


class _Choice(NamedTuple):
    """Where the greedy choice of channels stands.

    Attributes:
        gains: int32 (C,), neighbours that each adds to the chosen ones, at most; -1 for the chosen.
        covered: bool (Q, C * K), whether the neighbour is one of a chosen channel, at the slots of
            representatives.
    """

    gains: Array
    covered: Array


def _best(gains: Array, factors: Array) -> Array:
    """The channel of the largest product, the first of equals; none of gain -1 if others are."""
    values = jnp.where(gains < 0, -1, gains.astype(factors.dtype) * factors)
    return jnp.argmax(values).astype(jnp.int32)


def _identifiers(graph: NNKGraph) -> Array:
    """The neighbours of each image in all channels, int32 (Q, C * K), -1 where there is none."""
    check_channels(graph)
    identifiers = jnp.where(graph.weights > 0, graph.indices, -1).swapaxes(0, 1)
    num_images, num_channels, num_neighbors = identifiers.shape
    return identifiers.reshape(num_images, num_channels * num_neighbors)


def _representatives(identifiers: Array) -> Array:
    """Of all slots with the same identifier, one that stands for them.

    Args:
        identifiers: int32 (S,), -1 for none.

    Returns:
        int32 (S,), a slot; S where there is no identifier.
    """
    size = len(identifiers)
    slots = jnp.arange(size, dtype=jnp.int32)
    windows, places = identifiers >> _BITS, (identifiers & 2**_BITS - 1).astype(jnp.uint32)
    none = np.iinfo(np.int32).max

    def next_after(window: Array | int) -> Array:
        return jnp.min(jnp.where(windows > window, windows, none), initial=none)

    def is_left(carry: tuple[Array, Array]) -> Array:
        return carry[0] < none

    def mark(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        window, representatives = carry
        is_here = windows == window
        marked = jnp.zeros(2**_BITS, jnp.int32)
        marked = marked.at[jnp.where(is_here, places, 2**_BITS)].set(slots, mode="drop")
        found = marked.at[places].get(mode="promise_in_bounds")
        return next_after(window), jnp.where(is_here, found, representatives)

    start = next_after(-1), jnp.full(size, size, jnp.int32)
    return jax.lax.while_loop(is_left, mark, start)[1]
