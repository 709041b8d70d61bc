"""The overlap that channels with nothing in common would have by chance."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float
from scipy.special import gammaln

from jnnk._core import typed_jax
from jnnk._core.whole_numbers import whole_number
from jnnk.graphs import NNKGraph
from jnnk.measures._comparison import comparison, means_over_images
from jnnk.measures._neighborhoods import (
    check_channels,
    dead_pairs,
    degrees,
    split_blocks,
    support_weights,
)
from jnnk.measures._overlap_kinds import overlap_kind, ratio


@typed_jax.jit(static_argnames=("num_candidates", "kind", "block_size"))
def chance_overlap(
    graph: NNKGraph, *, num_candidates: int, kind: str = "jaccard", block_size: int = 128
) -> Float[Array, "C C"]:
    """Expected overlap of channels that have nothing in common, for the same degrees and weights.

    The null: each image's neighbours are drawn uniformly without replacement among M candidates,
    independently in every channel, with the degrees (and weights) that were observed. Then
    ``|S_c & S_d|`` is hypergeometric, ``P(i) = C(a,i) C(M-a,b-i) / C(M,b)`` for degrees a and b,
    from which the expectations of Jaccard, overlap and Dice follow; for the weighted kinds every
    two neighbours coincide with probability ``1/M``, so the expectation is
    ``sum_jk combine(theta_cj, theta_dk) / M``. Exact up to rounding, diagonal included (it says
    what an independent copy of the channel would give). Images that coincide share more than that:
    see `jnnk.channel_overlap`.

    Args:
        graph: leading axis C, as for `channel_overlap`.
        num_candidates: M, how many images could have been a neighbour: N - 1 when the queries
            are the points themselves. May be smaller than K, whose last candidates do not exist.
        kind: which comparison.
        block_size: images compared at once.

    Returns:
        (C, C); NaN for dead channels and those in which an image has more than M neighbours.

    Raises:
        ValueError: as `channel_overlap`, or if M is negative.
    """
    check_channels(graph)
    weights = support_weights(graph)
    num_candidates = whole_number("num_candidates", num_candidates, least=0)
    impossible = (degrees(weights) > num_candidates).any(1)
    unknown = dead_pairs(weights, weights) | impossible[:, None] | impossible[None, :]
    blocks = split_blocks(graph.indices, overlap_kind(kind).strength(weights), block_size)
    if kind in ("weighted", "cosine"):
        compare = comparison(overlap_kind(kind), num_candidates=max(num_candidates, 1))
        every_image = jnp.ones((1, weights.shape[1]), weights.dtype)
        expected = means_over_images(compare, blocks, blocks, every_image).of_pairs[0]
    else:
        expected = _means_by_degree(blocks.strengths, num_candidates, kind)
    return jnp.where(unknown, jnp.nan, expected)


def _means_by_degree(strengths: Array, num_candidates: int, kind: str) -> Array:
    """Means over images of the expected similarity, which depends on the two degrees alone.

    Args:
        strengths: (number of blocks, C, K, B), see `Neighborhoods`.
        num_candidates: M.
        kind: one that compares sets.

    Returns:
        (C, C), NaN where no image has a neighbour in either channel.
    """
    number, num_channels, num_neighbors, block_size = strengths.shape
    num_degrees, dtype = num_neighbors + 1, strengths.dtype
    table = jnp.asarray(_expected_values(num_degrees, num_candidates, kind), dtype)
    product = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)

    def add(totals: tuple[Array, Array], strengths: Array) -> tuple[tuple[Array, Array], None]:
        present = strengths > 0
        of_degree = jax.nn.one_hot(present.sum(1), num_degrees, dtype=dtype)
        rows, columns = (
            x.reshape(len(x), num_degrees * block_size)
            for x in (product(of_degree, table), of_degree)
        )
        empty = (~present.any(1)).astype(dtype)
        return (totals[0] + product(rows, columns.T), totals[1] + product(empty, empty.T)), None

    nothing = jnp.zeros((num_channels, num_channels), dtype)
    (summed, empty), _ = jax.lax.scan(add, (nothing, nothing), strengths)
    # What fills up the last block is empty too.
    counted = number * block_size - empty
    return ratio(summed, counted, otherwise=jnp.nan)


def _expected_values(num_degrees: int, num_candidates: int, kind: str) -> np.ndarray:
    """Expectation of a set similarity by the two degrees 0, 1, ...: float64, row a, column b.

    0 for degrees above the number of candidates, which cannot be.
    """
    degree = np.arange(min(num_degrees, num_candidates + 1))
    a, b, shared = np.meshgrid(degree, degree, degree, indexing="ij")

    def log_choose(n: int | np.ndarray, k: np.ndarray) -> np.ndarray:
        return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)

    possible = (shared <= a) & (shared <= b) & (b - shared <= num_candidates - a)
    i = np.where(possible, shared, 0)
    rest = np.where(possible, b - i, 0)
    log_probability = (
        log_choose(a, i) + log_choose(num_candidates - a, rest) - log_choose(num_candidates, b)
    )
    probability = np.where(possible, np.exp(log_probability), 0)
    sizes = {"jaccard": a + b - i, "overlap": np.minimum(a, b), "dice": (a + b) / 2}
    expected = (probability * i / np.maximum(sizes[kind], 1)).sum(-1)
    return np.pad(expected, (0, num_degrees - len(degree)))
