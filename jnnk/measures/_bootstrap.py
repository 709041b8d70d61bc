"""How far channel overlap depends on the images that were seen: bootstrap over images."""

import operator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from jnnk._core import typed_jax
from jnnk._core.whole_numbers import whole_number
from jnnk.graphs import NNKGraph
from jnnk.measures._neighborhoods import check_channels, degrees
from jnnk.measures._overlap import overlap_and_sums, weighted_overlap
from jnnk.measures._statistics import NUM_RESAMPLES, MeanInterval

_LIMITS = (0.025, 0.975)
# Numbers that `layer_overlap` holds at once of all samples.
_PART = 2**26


class OverlapInterval(NamedTuple):
    """Bootstrap percentile intervals of the overlap, resampling images.

    Attributes:
        pairs: (C, C), the overlap itself, as `channel_overlap` gives it.
        pairs_lower, pairs_upper: (C, C), the interval of each pair.
        mean: (), mean over the pairs of different live channels; NaN with fewer than two.
        mean_lower, mean_upper: (), its interval.
    """

    pairs: Float[Array, "C C"]
    pairs_lower: Float[Array, "C C"]
    pairs_upper: Float[Array, "C C"]
    mean: Float[Array, ""]
    mean_lower: Float[Array, ""]
    mean_upper: Float[Array, ""]


def overlap_resamples(
    graph: NNKGraph,
    key: Array,
    *,
    kind: str = "jaccard",
    num_resamples: int = NUM_RESAMPLES,
    block_size: int = 128,
) -> Float[Array, "samples C C"]:
    """Bootstrap of the channel overlap: of all images, and of resamples of them.

    Not one program: the draws are compiled once, whatever the number of channels.

    Args:
        graph: leading axis C, as for `jnnk.measures.channel_overlap`.
        key: a JAX random key.
        kind: which comparison.
        num_resamples: R, each of Q images drawn with replacement.
        block_size: images compared at once.

    Returns:
        (1 + R, C, C), the overlap itself first.

    Raises:
        ValueError: as `jnnk.measures.channel_overlap`.
    """
    check_channels(graph)
    num_resamples = whole_number("num_resamples", num_resamples)
    drawn = _multiplicities(key, graph.weights.shape[1], num_resamples)
    samples = drawn.astype(graph.weights.dtype)
    return weighted_overlap(graph, graph, samples, kind=kind, block_size=block_size)


@typed_jax.jit(static_argnames=("kind", "num_resamples", "level", "block_size"))
def overlap_interval(
    graph: NNKGraph,
    key: Array,
    *,
    kind: str = "jaccard",
    num_resamples: int = NUM_RESAMPLES,
    level: float = 0.95,
    block_size: int = 128,
) -> OverlapInterval:
    """Percentile bootstrap intervals of the channel overlap, resampling images.

    Every resample draws Q images with replacement; the overlap of a resample is the mean over
    its images.

    Args:
        graph: leading axis C, as for `channel_overlap`.
        key: a JAX random key.
        kind: which comparison.
        num_resamples: R.
        level: the interval's coverage, between 0 and 1.
        block_size: images compared at once.

    Returns:
        The intervals; they reflect which images were seen, not the training of the network.

    Raises:
        ValueError: as `channel_overlap`, or for a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number between 0 and 1, got {level}")
    pairs = overlap_resamples(
        graph, key, kind=kind, num_resamples=num_resamples, block_size=block_size
    )
    others = ~jnp.eye(pairs.shape[-1], dtype=bool)
    layer = jnp.nanmean(pairs, axis=(1, 2), where=others)
    tails = jnp.array([(1 - level) / 2, (1 + level) / 2], pairs.dtype)
    pair_limits = jnp.nanquantile(pairs[1:], tails, axis=0)
    layer_limits = jnp.nanquantile(layer[1:], tails)
    overlap, (pairs_lower, pairs_upper) = pairs[0], pair_limits
    mean, (mean_lower, mean_upper) = layer[0], layer_limits
    return OverlapInterval(overlap, pairs_lower, pairs_upper, mean, mean_lower, mean_upper)


def layer_overlap(graph: NNKGraph, key: Array) -> tuple[np.ndarray, MeanInterval]:
    """`overlap_interval` without the pairs' own intervals, whatever the number of channels.

    Args:
        graph: leading axis C, as for `channel_overlap`.
        key: a JAX random key.

    Returns:
        The overlap (C, C) and its mean over the pairs of different live channels, NaN without any.
    """
    is_heard = np.asarray(degrees(graph.weights)) > 0
    live: np.ndarray = np.any(is_heard, axis=1)
    pairs: np.ndarray = live[:, None] & live & ~np.eye(len(live), dtype=bool)
    drawn = _multiplicities(key, graph.weights.shape[1], NUM_RESAMPLES)
    if is_heard[live].all():
        # Every image counts for every pair, so that means over pairs may come before those over
        # images.
        overlap, sums = overlap_and_sums(graph, jnp.asarray(pairs, graph.weights.dtype))
        sums = np.asarray(drawn, np.float64) @ np.asarray(sums, np.float64) / is_heard.shape[1]
        counts = np.full(len(sums), pairs.sum())
    else:
        overlap, sums, counts = _in_parts(graph, drawn.astype(graph.weights.dtype), pairs)
    if not counts.any():
        return np.asarray(overlap), MeanInterval(np.nan, np.nan, np.nan)
    mean, *resampled = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).tolist()
    return np.asarray(overlap), MeanInterval(mean, *np.nanquantile(resampled, _LIMITS).tolist())


def _in_parts(
    graph: NNKGraph, samples: Array, pairs: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The overlap in the first sample, (C, C), and sums and numbers of the pairs in each, (R,).

    Pairs for which no image of a sample counts are left out of it.
    """
    size = max(1, _PART // (len(samples) * len(pairs)))
    overlap: list[np.ndarray] = []
    sums, counts = np.zeros(len(samples)), np.zeros(len(samples), int)
    for start in range(0, len(pairs), size):
        part = slice(start, start + size)
        rows: NNKGraph = jax.tree.map(operator.itemgetter(part), graph)
        values = np.asarray(weighted_overlap(rows, graph, samples))
        overlap.append(values[0])
        known = pairs[part] & np.isfinite(values)
        sums += np.where(known, values, 0).sum((1, 2), dtype=np.float64)
        counts += known.sum((1, 2))
    return np.concatenate(overlap), sums, counts


@typed_jax.jit(static_argnames=("num_queries", "num_resamples"))
def _multiplicities(key: Array, num_queries: int, num_resamples: int) -> Array:
    """How often each image is drawn, (1 + R, Q) int32; the first sample is all images once."""

    def sample(key: Array) -> Array:
        drawn = jax.random.randint(key, (num_queries,), 0, num_queries, jnp.int32)
        return jnp.zeros(num_queries, jnp.int32).at[drawn].add(1)

    drawn = typed_jax.lax_map(sample, jax.random.split(key, num_resamples))
    return jnp.concatenate([jnp.ones((1, num_queries), jnp.int32), drawn])
