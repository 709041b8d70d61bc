"""Intrinsic dimension of data as one channel, or a whole layer, sees it."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jnnk.graph import NNKGraph


class IntrinsicDimension(NamedTuple):
    """Three readings of the local dimension; leading axes are those of the graph (C, or none).

    Attributes:
        degree: (..., Q) int32, number of NNK neighbours of each image. Around a point of a
            d-dimensional manifold they are the vertices of a polytope, so the number grows with
            d (arXiv 1910.09383) without being an estimate of d itself.
        mean_degree: (...), its mean over all images; 0 for a dead channel.
        degree_counts: (..., K + 1) int32, how many images have 0, 1, ..., K neighbours.
        two_nn: (...), see `two_nn`.
        mle: (...), see `maximum_likelihood_dimension`.
    """

    degree: Array
    mean_degree: Array
    degree_counts: Array
    two_nn: Array
    mle: Array


@jax.jit
def intrinsic_dimension(graph: NNKGraph) -> IntrinsicDimension:
    """NNK degrees, and beside them TwoNN and maximum likelihood on the candidates' distances.

    Args:
        graph: with at least two candidates per query; weights (..., Q, K).

    Returns:
        See `IntrinsicDimension`. The two estimates use the distances in which the candidates were
        searched: Euclidean for the Gaussian similarity, between unit vectors for the cosine.

    Raises:
        ValueError: for graphs with a single candidate.
    """
    degree = nnk_degree(graph)
    steps = jnp.arange(graph.weights.shape[-1] + 1, dtype=degree.dtype)
    counts = (degree[..., None, :] == steps[:, None]).sum(-1, dtype=jnp.int32)
    return IntrinsicDimension(
        degree,
        degree.astype(graph.weights.dtype).mean(-1),
        counts,
        two_nn(graph.squared_distances),
        maximum_likelihood_dimension(graph.squared_distances),
    )


@jax.jit
def nnk_degree(graph: NNKGraph) -> Array:
    """Number of NNK neighbours of every image, (..., Q) int32.

    Args:
        graph: weights (..., Q, K).
    """
    return (graph.weights > 0).sum(-1, dtype=jnp.int32)


@partial(jax.jit, static_argnames="discard")
def two_nn(squared_distances: Array, *, discard: float = 0.1) -> Array:
    """The TwoNN estimate (Facco et al. 2017, doi 10.1038/s41598-017-11873-y).

    With ``mu = r2 / r1`` the ratio of the distances to the two nearest points, sorted so that
    ``F_i = i / n``, the dimension is the slope through the origin of ``-log(1 - F_i)`` against
    ``log mu_i``: ``d = sum x y / sum x^2``, the largest ``discard`` share left out.

    The smallest ratio has ``F = 1/n``, not 0: scikit-dimension started at 0 until its pull
    request 28, which biases d downward.

    Args:
        squared_distances: (..., Q, K) floating, ascending, K at least 2; infinite for none.
        discard: share of the largest ratios left out, in (0, 1).

    Returns:
        (...) floating. Queries whose nearest point coincides with them, or that have fewer than
        two, are left out; NaN where fewer than two ratios remain or all of them are 1.

    Raises:
        ValueError: for fewer than two neighbours or a discard outside (0, 1).
    """
    _check(squared_distances)
    if not 0 < discard < 1:
        raise ValueError(f"discard must lie strictly between 0 and 1; got {discard}")
    first, second = squared_distances[..., 0], squared_distances[..., 1]
    valid = (first > 0) & jnp.isfinite(second)
    log_ratio = 0.5 * (_log(second, valid) - _log(first, valid))
    x = jnp.sort(jnp.where(valid, log_ratio, jnp.inf), axis=-1)
    number = valid.sum(-1, keepdims=True).astype(x.dtype)
    rank = jnp.arange(1, x.shape[-1] + 1, dtype=x.dtype)
    # The factor undoes the rounding of the product, so that 90 % of 10 is 9.
    kept = jnp.floor(number * (1 - discard) * (1 + 4 * jnp.finfo(x.dtype).eps))
    used = rank <= kept
    y = -jnp.log1p(-jnp.where(used, rank / jnp.maximum(number, 1), 0))
    x = jnp.where(used, x, 0)
    enough = (kept[..., 0] >= 2) & (jnp.square(x).sum(-1) > 0)
    slope = (x * y).sum(-1) / jnp.where(enough, jnp.square(x).sum(-1), 1)
    return jnp.where(enough, slope, jnp.nan)


@jax.jit
def maximum_likelihood_dimension(squared_distances: Array) -> Array:
    """The estimate of Levina and Bickel (NIPS 2004) from the K nearest points.

    At a point with distances ``T_1 <= ... <= T_K`` it is
    ``m = [ sum_{j<K} log(T_K / T_j) / (K - 1) ]^-1``. Points are combined by the harmonic mean,
    ``1 / mean(1 / m)``, the maximum of their joint likelihood (MacKay and Ghahramani 2005), which
    removes most of the bias of the arithmetic mean.

    Args:
        squared_distances: (..., Q, K) floating, ascending, K at least 2; infinite for none.

    Returns:
        (...) floating. Neighbours that coincide with the query do not count; queries with fewer
        than two others are left out. NaN where no query remains; infinity where every query's
        neighbours are all equally far.

    Raises:
        ValueError: for fewer than two neighbours.
    """
    _check(squared_distances)
    valid = (squared_distances > 0) & jnp.isfinite(squared_distances)
    logs = 0.5 * _log(squared_distances, valid)
    farthest = jnp.max(logs, axis=-1, keepdims=True, initial=-jnp.inf, where=valid)
    number = valid.sum(-1).astype(logs.dtype)
    usable = number >= 2
    total = jnp.sum(jnp.where(valid, farthest - logs, 0), axis=-1)
    inverse = jnp.where(usable, total, 0) / jnp.where(usable, number - 1, 1)
    return 1 / jnp.mean(inverse, axis=-1, where=usable)


def _check(squared_distances: Array) -> None:
    if squared_distances.ndim < 2 or squared_distances.shape[-1] < 2:
        raise ValueError(
            "squared_distances must be (..., Q, K) with K at least 2; "
            f"got shape {squared_distances.shape}"
        )


def _log(x: Array, valid: Array) -> Array:
    return jnp.log(jnp.where(valid, x, 1))
