"""Baselines of NNK overlap: kNN graphs, debiased linear CKA, agreement with the labels."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Integer, Real

from jnnk._core import typed_jax
from jnnk._core.arrays import ArrayLike
from jnnk._core.precision import contract, working_dtype
from jnnk.graphs import NNKGraph, RadialSimilarity
from jnnk.graphs._search.differences import power_of_two
from jnnk.measures._labels import labels_of_neighbors, labels_of_points


def knn_graph(graph: NNKGraph, *, similarity: RadialSimilarity | None = None) -> NNKGraph:
    """The plain K-nearest-neighbour graph on the candidates of an NNK graph.

    Every measure of a graph applies to it: `jnnk.measures.channel_overlap` of it is the overlap
    of plain neighbourhoods, `jnnk.measures.loo_error` the error of the kNN classifier.

    Args:
        graph: weights (..., Q, K).
        similarity: weights from `jnnk.graphs.gaussian` or `cosine` (the one the graph was
            built with), as DeepNNK's weighted kNN; None gives every candidate weight 1.

    Returns:
        The graph with other weights; its errors and certificates are those of the NNK problem.
        Candidates that coincide with their query have similarity 1, also where the bandwidth is 0
        because all K do. As in the NNK graph, a dead channel has no neighbours.
    """
    apart = (graph.distances > 0) & jnp.isfinite(graph.distances)
    # Of a channel that is not dead some points lie apart; if no candidates do, they have weights.
    alive = (apart | (graph.weights > 0)).any((-2, -1), keepdims=True)
    valid = (graph.indices >= 0) & alive
    if similarity is None:
        return graph._replace(weights=valid.astype(graph.weights.dtype))

    def weights(distances: Array, valid: Array) -> Array:
        distances = jnp.where(valid, distances, 0)
        largest = jax.lax.stop_gradient(distances).max(initial=0)
        # A power of two close to it, so that no square leaves the range of the dtype.
        power = jnp.ldexp(jnp.ones_like(largest), jnp.frexp(largest)[1] - 1)
        unit = jnp.where(largest > 0, power, 1)
        squares = jnp.square(distances / unit)
        resolved = similarity.resolved(squares, valid, unit)
        widths = resolved.widths(squares, valid, unit)
        return resolved.of_squared_distances(squares, widths[:, None])

    for _ in range(valid.ndim - 2):
        weights = jax.vmap(weights)
    values = weights(jnp.asarray(graph.distances), valid)
    return graph._replace(weights=jnp.where(valid, values, 0))


def label_overlap(graph: NNKGraph, labels: Integer[ArrayLike, " N"]) -> Float[Array, "..."]:
    """Share of an image's neighbours that have its label, averaged over images.

    The neighbourhood overlap with the ground truth of Doimo et al. (NeurIPS 2020) when applied
    to `knn_graph`; on an NNK graph the same for its support.

    Args:
        graph: of the points themselves, weights (..., N, K).
        labels: (N,); an image whose label is negative or beyond int32 has none: it agrees with
            nobody, and so counts as 0 itself, as it counts as an error in
            `jnnk.measures.loo_error`.

    Returns:
        (...) in [0, 1]; images without neighbours are left out, NaN where none has any.

    Raises:
        ValueError: if the labels are not N integers, or a neighbour has an index of N or more
            (within transformations, where indices are not known, NaN is the answer to that).
    """
    return _label_overlap(graph, labels_of_points(graph, labels, own=True))


@typed_jax.jit
def _label_overlap(graph: NNKGraph, labels: Array) -> Array:
    support = graph.weights > 0
    neighbor_labels, known = labels_of_neighbors(graph, labels)
    own = labels.reshape((1,) * (support.ndim - 2) + (-1, 1))
    same = (neighbor_labels == own) & (own >= 0)
    degree = support.sum(-1)
    dtype = graph.weights.dtype
    share = (same & support).sum(-1).astype(dtype) / jnp.maximum(degree, 1).astype(dtype)
    share = jnp.where(known.all(-1), share, jnp.nan)
    return jnp.mean(share, axis=-1, where=degree > 0)


@typed_jax.jit
def linear_cka(
    features: Real[ArrayLike, "N ..."], others: Real[ArrayLike, "N ..."]
) -> Float[Array, ""]:
    """Debiased linear centred kernel alignment of two representations of the same images.

    ``HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))`` of the Gram matrices ``K = XX'`` and ``L = YY'``,
    with the unbiased estimator of Song et al. (JMLR 2012): without their diagonals,

    ``HSIC(K, L) = [tr(KL) + 1'K1 1'L1 / ((N - 1)(N - 2)) - 2 1'KL1 / (N - 2)] / (N (N - 3))``.

    Independent representations score 0 on average and may score a little below, whatever their
    widths; the biased ratio of Kornblith et al. (ICML 2019) tends to 1 for them as the widths grow
    (Nguyen et al., ICLR 2021). Invariant to orthogonal transformations, translations and one common
    scale of either side.

    Args:
        features: flattened to (N, p).
        others: flattened to (N, q).

    Returns:
        In [-1, 1]; NaN for fewer than 4 images, for which the estimator does not exist, and
        where either side is constant or differs from a constant in one image only.

    Raises:
        ValueError: if the numbers of images differ.
    """
    if features.shape[0] != others.shape[0]:
        raise ValueError(
            "features and others: expected as many images in both, "
            f"got {features.shape[0]} and {others.shape[0]}"
        )
    x, y = (standardised(_as_rows(jnp.asarray(z))) for z in (features, others))
    return _dependence(x, y) / (_norm(x) * _norm(y))


@typed_jax.jit
def channel_cka(activations: Real[ArrayLike, "N ... C"]) -> Float[Array, "C C"]:
    """`linear_cka` between every two channels of a layer.

    Args:
        activations: (N, H, W, C), or (N, D, C).

    Returns:
        Symmetric, 1 on the diagonal; NaN for dead channels, see `linear_cka`.
    """
    activations = jnp.asarray(activations)
    num_images, *sizes, num_channels = activations.shape
    points = activations.reshape(num_images, math.prod(sizes), num_channels)
    channels = jax.vmap(standardised, in_axes=2)(points)
    norms = typed_jax.lax_map(_norm, channels)

    def with_others(channel: Array) -> Array:
        return typed_jax.lax_map(partial(_dependence, channel), channels)

    return typed_jax.lax_map(with_others, channels) / norms[:, None] / norms[None, :]


def _as_rows(features: Array) -> Array:
    """(N, ...) to (N, p)."""
    return features.reshape(len(features), math.prod(features.shape[1:]))


def without_bias(inner: Array) -> tuple[Array, Array]:
    """Gram matrices centred so that their inner products are ``N (N - 3)`` times unbiased HSIC.

    U-centring (Szekely & Rizzo 2014): the diagonal is 0, and so are the sums of rows and columns.

    Args:
        inner: (..., N, N) symmetric, N >= 4.

    Returns:
        The centred matrices (..., N, N), and bool (...): whether more than rounding is left.
    """
    size = inner.shape[-1]
    diagonal = jnp.eye(size, dtype=bool).reshape(*[1] * (inner.ndim - 2), size, size)
    inner = jnp.where(diagonal, 0, inner)
    rows = inner.sum(-1, keepdims=True) / (size - 2)
    total = rows.sum(-2, keepdims=True) / (size - 1)
    centred = jnp.where(diagonal, 0, inner - rows - rows.mT + total)
    return centred, _is_signal(jnp.square(centred).sum((-2, -1)), jnp.square(inner).sum((-2, -1)))


def _is_signal(value: Array, terms: Array) -> Array:
    """Whether the value is more than the rounding of terms of that size, which it is left from."""
    return value > 64 * typed_jax.finfo(value.dtype).eps * terms


def _dependence(x: Array, y: Array) -> Array:
    """``N (N - 3)`` times unbiased HSIC of standardised (N, p) and (N, q)."""
    return _dependence_and_terms(x, y)[0]


def _norm(x: Array) -> Array:
    square, terms = _dependence_and_terms(x, x)
    return jnp.sqrt(jnp.where(_is_signal(square, terms), square, jnp.nan))


def _dependence_and_terms(x: Array, y: Array) -> tuple[Array, Array]:
    """By the smaller of (N, N) and (p, q) matrices, with the largest of the terms summed."""
    size = x.shape[0]
    if size < 4:
        nan = jnp.full((), jnp.nan, x.dtype)
        return nan, nan
    if size**2 <= x.shape[1] * y.shape[1]:
        grams = [contract("np,mp->nm", z, z) for z in (x, y)]
        (k, _), (l, _) = map(without_bias, grams)
        off = 1 - jnp.eye(size, dtype=x.dtype)
        return jnp.sum(k * l), jnp.sum(jnp.abs(grams[0] * grams[1]) * off)
    # Rows of K sum to 0 for centred x, to -|x_i|^2 without the diagonal.
    squares = jnp.square(contract("np,nq->pq", x, y)).sum()
    k, l = (jnp.square(z).sum(1) for z in (x, y))
    of_diagonals = size / (size - 2) * jnp.sum(k * l)
    of_traces = k.sum() * l.sum() / ((size - 1) * (size - 2))
    return squares - of_diagonals + of_traces, squares


def standardised(x: Array) -> Array:
    """Centred columns of (N, p) with largest entry 1, in float32 at least; constant ones become 0.

    Squares then neither over- nor underflow. CKA and correlation do not see the scale, so it counts
    as constant in derivatives, which would overflow through it.
    """
    x = x.astype(working_dtype(x.dtype))
    # No sum leaves the range of the dtype in this unit, and nothing rounds otherwise.
    x = x / power_of_two(jax.lax.stop_gradient(jnp.abs(x).max(initial=0)))
    centred = x - x.mean(0, keepdims=True)
    # A constant column leaves rounding behind, which would pass for a signal.
    constant = (x == x[:1]).all(0)
    centred = jnp.where(constant[None], 0, centred)
    largest = jax.lax.stop_gradient(jnp.abs(centred).max(initial=0))
    return centred / jnp.where(largest > 0, largest, 1)
