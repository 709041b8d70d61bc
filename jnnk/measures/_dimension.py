"""Intrinsic dimension of data as one channel, or a whole layer, sees it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from jnnk._core import typed_jax
from jnnk._core.arrays import ArrayLike
from jnnk._core.whole_numbers import whole_number
from jnnk.graphs import NNKGraph
from jnnk.measures._neighborhoods import degrees

_DISCARD = 0.1  # of the largest ratios of TwoNN, as its authors do
_NEWTON_STEPS = 8  # more than steps that converge quadratically need in float64


class IntrinsicDimension(NamedTuple):
    """Intrinsic dimension in three ways; leading axes are those of the graph (C, or none).

    Attributes:
        degree: (..., Q), number of NNK neighbours of each image. Around a point of a
            d-dimensional manifold they are the vertices of a polytope, so the number grows with
            d (arXiv 1910.09383) without being an estimate of d itself. Of an image that coincides
            with others it says nothing of geometry: it is the number of those, at most K.
        mean_degree: (...), its mean over all images; 0 for a dead channel.
        degree_counts: (..., K + 1), how many images have 0, 1, ..., K neighbours.
        two_nn: (...), see `two_nn`.
        mle: (...), see `maximum_likelihood_dimension`.
    """

    degree: Int[Array, "... Q"]
    mean_degree: Float[Array, "..."]
    degree_counts: Int[Array, "... degrees"]
    two_nn: Float[Array, "..."]
    mle: Float[Array, "..."]


@typed_jax.jit
def intrinsic_dimension(graph: NNKGraph) -> IntrinsicDimension:
    """NNK degrees, and the dimension by TwoNN and by maximum likelihood, on a graph's distances.

    Args:
        graph: with at least two candidates per query; weights (..., Q, K).

    Returns:
        See `IntrinsicDimension`. The two estimates use the distances in which the candidates were
        searched: Euclidean for the Gaussian similarity, between unit vectors for the cosine.

    Raises:
        ValueError: for graphs with a single candidate.
    """
    _check("graph.distances", graph.distances)
    logs = _logs(graph.distances)
    degree = nnk_degree(graph)
    steps = jnp.arange(graph.weights.shape[-1] + 1, dtype=degree.dtype).reshape(
        (1,) * (degree.ndim - 1) + (-1, 1)
    )
    counts = (degree[..., None, :] == steps).sum(-1, dtype=jnp.int32)
    return IntrinsicDimension(
        degree,
        degree.astype(graph.weights.dtype).mean(-1),
        counts,
        _two_nn(*logs, discard=_DISCARD),
        _maximum_likelihood(*logs),
    )


@typed_jax.jit
def nnk_degree(graph: NNKGraph) -> Int[Array, "... Q"]:
    """Number of NNK neighbours of every image.

    Args:
        graph: weights (..., Q, K).
    """
    return degrees(graph.weights)


@typed_jax.jit(static_argnames="discard")
def two_nn(
    squared_distances: Float[ArrayLike, "... Q K"], *, discard: float = _DISCARD
) -> Float[Array, "..."]:
    """Intrinsic dimension by TwoNN (Facco et al. 2017, doi 10.1038/s41598-017-11873-y).

    With ``mu = r2 / r1`` the ratio of the distances to the two nearest points, sorted so that
    ``F_i = i / n``, the dimension is the slope through the origin of ``-log(1 - F_i)`` against
    ``log mu_i``: ``d = sum x y / sum x^2``, the largest ``discard`` share left out.

    The smallest ratio has ``F = 1/n``, not 0: scikit-dimension started at 0 until its pull
    request 28, which biases d downward.

    Args:
        squared_distances: (..., Q, K), ascending, K at least 2; infinite for none.
        discard: share of the largest ratios left out, in (0, 1).

    Returns:
        Queries whose nearest point coincides with them, or that have fewer than
        two, are left out; NaN where fewer than two ratios remain or all of them are 1.

    Raises:
        ValueError: for fewer than two neighbours or a discard outside (0, 1).
    """
    squared_distances = jnp.asarray(squared_distances)
    _check("squared_distances", squared_distances)
    if not 0 < discard < 1:
        raise ValueError(f"discard: expected a number between 0 and 1, got {discard}")
    logs, valid = _logs(squared_distances)
    return _two_nn(0.5 * logs, valid, discard=discard)


@typed_jax.jit
def maximum_likelihood_dimension(
    squared_distances: Float[ArrayLike, "... Q K"],
) -> Float[Array, "..."]:
    """Intrinsic dimension by maximum likelihood on the K nearest points.

    The estimate of Levina and Bickel (NIPS 2004): at a point with distances
    ``T_1 <= ... <= T_K`` it is
    ``m = [ sum_{j<K} log(T_K / T_j) / (K - 1) ]^-1``. Points are combined by the harmonic mean,
    ``1 / mean(1 / m)``, the maximum of their joint likelihood (MacKay and Ghahramani 2005), which
    removes most of the bias of the arithmetic mean.

    Args:
        squared_distances: (..., Q, K), ascending, K at least 2; infinite for none.

    Returns:
        Neighbours that coincide with the query do not count; queries with fewer
        than two others are left out. NaN where no query remains; infinity where every query's
        neighbours are all equally far.

    Raises:
        ValueError: for fewer than two neighbours.
    """
    squared_distances = jnp.asarray(squared_distances)
    _check("squared_distances", squared_distances)
    logs, valid = _logs(squared_distances)
    return _maximum_likelihood(0.5 * logs, valid)


@typed_jax.jit(static_argnames="nearer")
def gride(distances: Float[ArrayLike, "... Q K"], *, nearer: int = 2) -> Float[Array, "..."]:
    """Intrinsic dimension by Gride (Denti et al. 2022, doi 10.1038/s41598-022-20991-1).

    TwoNN on a larger scale, on which noise weighs less: with ``mu = r_2n / r_n`` the ratio of the
    distances to the 2n-th and to the n-th nearest point, n = ``nearer``, the dimension maximises
    the likelihood of all ratios, each of density

    ``f(mu) = d (mu^d - 1)^(n - 1) / (B(n, n) mu^((2n - 1) d + 1))``,

    the paper's with ``n1 = n`` and ``n2 = 2n``; n = 1 is the maximum likelihood of TwoNN's model.
    The logarithm is concave in d; its derivative
    ``N / d + (n - 1) sum log mu / (1 - mu^-d) - (2n - 1) sum log mu`` is convex and falls, so that
    Newton's steps from below its zero rise to it.

    Args:
        distances: (..., Q, K), ascending, K at least 2n; infinite for none. Those of a
            graph are its ``distances``.
        nearer: n, at least 1. Doubling it from 1 on, the estimate against the distance shows on
            which scales the data have which dimension.

    Returns:
        Queries whose n-th nearest point coincides with them, or that have fewer
        than 2n, are left out; NaN where none remains or all ratios are 1. Ratios are counted as if
        independent, which those of neighbouring queries are not: that takes nothing from the
        estimate's consistency, but does from intervals by the likelihood.

    Raises:
        ValueError: for fewer than 2n neighbours or an n that is no whole number of at least 1.
    """
    nearer = whole_number("nearer", nearer)
    distances = jnp.asarray(distances)
    _check("distances", distances, least=2 * nearer)
    logs, valid = _logs(distances)
    valid = valid[..., nearer - 1] & valid[..., 2 * nearer - 1]
    ratio = jnp.where(valid, logs[..., 2 * nearer - 1] - logs[..., nearer - 1], 0)
    number, total = valid.sum(-1).astype(ratio.dtype), ratio.sum(-1)
    enough = total > 0
    # The mean ratio as the unit of all, so that nothing below depends on their size.
    mean = jnp.where(enough, total, 1) / jnp.maximum(number, 1)
    ratio = ratio / mean[..., None]

    def step(dimension: Array) -> Array:
        powers = dimension[..., None] * ratio
        # L / (1 - exp(-d L)) and minus its derivative in d, L^2 e^-dL / (1 - e^-dL)^2; at L = 0
        # they are 1 / d and 1 / d^2.
        some = valid & (powers > 0)
        safe = jnp.where(some, powers, 1)
        share = -jnp.expm1(-safe)
        first = jnp.where(some, safe / share, 1)
        second = jnp.where(some, jnp.exp(-safe) * jnp.square(safe / share), 1)
        first, second = (jnp.where(valid, x, 0).sum(-1) for x in (first, second))
        slope = number + (nearer - 1) * first - (2 * nearer - 1) * dimension * number
        curvature = number + (nearer - 1) * second
        return dimension + dimension * slope / jnp.maximum(curvature, 1)

    def next_step(_: Array, dimension: Array) -> Array:
        return step(dimension)

    # The zero lies between 1 / n and 1 in these units; from far below a step doubles it.
    start = jnp.full_like(total, 1 / nearer)
    number_of_steps = nearer.bit_length() + _NEWTON_STEPS
    stopped = typed_jax.fori_loop(0, number_of_steps, next_step, start)
    # The last step alone is differentiated: at the zero its derivative is that of the zero.
    return jnp.where(enough, step(jax.lax.stop_gradient(stopped)) / mean, jnp.nan)


def _two_nn(logs: Array, valid: Array, *, discard: float) -> Array:
    """`two_nn` from the logarithms of the distances."""
    valid = valid[..., 0] & valid[..., 1]
    log_ratio = jnp.where(valid, logs[..., 1] - logs[..., 0], jnp.inf)
    x = jnp.sort(log_ratio, axis=-1)
    number = valid.sum(-1, keepdims=True).astype(x.dtype)
    rank = jnp.arange(1, x.shape[-1] + 1, dtype=x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))
    # The factor undoes the rounding of the product, so that 90 % of 10 is 9. The largest ratio goes
    # in any case: its share is 1, the logarithm of what is left infinite.
    kept = jnp.floor(number * (1 - discard) * (1 + 4 * typed_jax.finfo(x.dtype).eps))
    kept = jnp.minimum(kept, number - 1)
    used = rank <= kept
    y = -jnp.log1p(-jnp.where(used, rank / jnp.maximum(number, 1), 0))
    x = jnp.where(used, x, 0)
    enough = (kept[..., 0] >= 2) & (jnp.square(x).sum(-1) > 0)
    slope = (x * y).sum(-1) / jnp.where(enough, jnp.square(x).sum(-1), 1)
    return jnp.where(enough, slope, jnp.nan)


@typed_jax.jit
def inverse_dimensions(graph: NNKGraph) -> Array:
    """The inverse of each image's own dimension by maximum likelihood, (..., Q).

    `maximum_likelihood_dimension` is the inverse of their mean. NaN for images with fewer than two
    neighbours that do not coincide with them.
    """
    inverse, usable = _inverses(*_logs(graph.distances))
    return jnp.where(usable, inverse, jnp.nan)


def _maximum_likelihood(logs: Array, valid: Array) -> Array:
    """`maximum_likelihood_dimension` from the logarithms of the distances."""
    inverse, usable = _inverses(logs, valid)
    return 1 / jnp.mean(inverse, axis=-1, where=usable)


def _inverses(logs: Array, valid: Array) -> tuple[Array, Array]:
    """The inverse dimension at each query, (..., Q), and where there is one."""
    # By its place, since a GPU may round logarithms otherwise where a maximum is derived.
    place = jnp.argmax(jnp.where(valid, logs, -jnp.inf), axis=-1, keepdims=True)
    farthest = jnp.take_along_axis(logs, place, axis=-1)
    number = valid.sum(-1).astype(logs.dtype)
    usable = number >= 2
    total = jnp.sum(jnp.where(valid, farthest - logs, 0), axis=-1)
    return jnp.where(usable, total, 0) / jnp.where(usable, number - 1, 1), usable


def _logs(lengths: Array) -> tuple[Array, Array]:
    """Logarithms of the lengths that are neither 0 nor infinite, and which those are."""
    valid = (lengths > 0) & jnp.isfinite(lengths)
    return jnp.log(jnp.where(valid, lengths, 1)), valid


def _check(name: str, lengths: Array, *, least: int = 2) -> None:
    if lengths.ndim < 2 or lengths.shape[-1] < least:
        raise ValueError(
            f"{name}: expected (..., Q, K) with K at least {least}, got shape {lengths.shape}"
        )
