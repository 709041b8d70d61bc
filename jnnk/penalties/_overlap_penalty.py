"""Channel overlap as a training objective: differentiable down to the activations.

The overlap of `jnnk.measures` counts neighbours, so its derivative is zero almost everywhere. Here
the neighbourhoods are compared by their weights, within one batch: candidates and supports come
from a forward pass that no gradient enters, the weights on a support S are differentiated as
``G_SS^-1 g_S`` (implicitly, see `jnnk.graphs.solve_nnk`), and so is every similarity in G and g.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from jnnk._core import typed_jax
from jnnk._core.arrays import ArrayLike
from jnnk._core.precision import contract
from jnnk._core.whole_numbers import whole_number
from jnnk.graphs import Cosine, Gaussian, RadialSimilarity, solve_nnk
from jnnk.graphs._search.shortlists import frame_of
from jnnk.graphs._similarity import DEFAULT
from jnnk.penalties._channel_pairs import channel_points, mean_of_pairs, pairs_of

# Squared distances below this many units of rounding are those of coinciding points.
_ROUNDING = 16
# Cells of the code of the smooth minimum, and where a weight counts as half a neighbour.
_CELLS = 4
_HALF = 0.02


class SoftOverlap(NamedTuple):
    """Soft overlap of a batch and what it rests on.

    Attributes:
        pairs: (C, C), mean over images of the soft overlap of two channels; 0 where a channel is
            dead, and on the diagonal.
        compared: (C, C), the pairs of two different live channels.
        converged: (C, B), which NNK problems were solved (see `jnnk.graphs.QPSolution`); the
            others, and images with NaN or infinity, are left out of ``pairs``.
        channels: (C,), which of the layer's channels these are.
    """

    pairs: Float[Array, "chosen chosen"]
    compared: Bool[Array, "chosen chosen"]
    converged: Bool[Array, "chosen B"]
    channels: Int[Array, " chosen"]


class SoftKind(NamedTuple):
    """How two neighbourhoods are compared, by inner products of their features.

    Attributes:
        code: ``(weights) -> features``, (..., K) to (..., K, F): what stands for a neighbour; 0 for
            weight 0.
        similarity: ``(shared, size, other_size) -> value`` from the inner product of two
            neighbourhoods' features and of either with itself; 1 where they are equal.
    """

    code: Callable[[Array], Array]
    similarity: Callable[[Array, Array, Array], Array]


def _thermometer(weights: Array) -> Array:
    """A code of ``p = weights / sum`` whose inner product is a smooth ``min(p, q)``.

    ``min(p, q)`` is the length of the levels t below both. With r in [0, 1] how far a number fills
    a cell of levels of length L, ``sum L r(p) r(q)`` over the cells is that length wherever p and q
    end in different cells, and has a gradient to both where they end in the same. Cells are
    finer where most weights are.
    """
    total = weights.sum(-1, keepdims=True)
    shares = weights / jnp.where(total > 0, total, 1)
    edges = np.square(np.arange(_CELLS + 1) / _CELLS)
    axes = (1,) * weights.ndim  # cells come last
    start, length = (
        jnp.asarray(x, weights.dtype).reshape(*axes, -1) for x in (edges[:-1], np.diff(edges))
    )
    return jnp.sqrt(length) * jnp.clip((shares[..., None] - start) / length, 0, 1)


def _saturated(weights: Array) -> Array:
    return (weights / (weights + _HALF))[..., None]


def _plain(weights: Array) -> Array:
    return weights[..., None]


def _tanimoto(shared: Array, size: Array, other: Array) -> Array:
    return shared / (size + other - shared)


def _cosine(shared: Array, size: Array, other: Array) -> Array:
    return shared / jnp.sqrt(size * other)


SOFT_OVERLAP_KINDS: dict[str, SoftKind] = {
    "ruzicka": SoftKind(_thermometer, _tanimoto),
    "cosine": SoftKind(_plain, _cosine),
    "support": SoftKind(_saturated, _tanimoto),
}
"""Comparisons of weights with gradients, see `soft_channel_overlap`."""


def overlap_penalty(
    activations: Float[ArrayLike, "B ... C"],
    *,
    num_neighbors: int = 12,
    kind: str = "ruzicka",
    similarity: RadialSimilarity = DEFAULT,
    num_channels: int | None = 64,
    key: Array | None = None,
) -> Float[Array, ""]:
    """The mean soft overlap of a layer's channels within a batch: a term for the training loss.

    Adding it times a positive number drives the channels' neighbourhoods apart, times a negative
    one together. See `soft_channel_overlap` for the arguments and what is measured.

    Args:
        activations: (B, H, W, C) or (B, D, C).
        num_neighbors: K.
        kind: a key of ``SOFT_OVERLAP_KINDS``.
        similarity: Gaussian or cosine.
        num_channels: the most channels compared.
        key: PRNG key that draws them.

    Returns:
        In [0, 1]: the mean over the pairs of different live channels, 0 where there are fewer
        than two. Gradients are finite for dead channels, duplicates and constant images.

    Raises:
        ValueError: as `soft_channel_overlap`.

    Examples:
        Two channels that see the same overlap wholly:

        >>> images = jnp.arange(6.0) ** 2
        >>> activations = jnp.stack([images, images], -1)[:, None]
        >>> print(overlap_penalty(activations, num_neighbors=3).round(3))
        1.0
    """
    overlap = soft_channel_overlap(
        activations, num_neighbors=num_neighbors, kind=kind, similarity=similarity,
        num_channels=num_channels, key=key,
    )  # fmt: skip
    return mean_of_pairs(overlap.pairs, overlap.compared)


@typed_jax.jit(static_argnames=("num_neighbors", "kind", "similarity", "num_channels"))
def soft_channel_overlap(
    activations: Float[ArrayLike, "B ... C"],
    *,
    num_neighbors: int = 12,
    kind: str = "ruzicka",
    similarity: RadialSimilarity = DEFAULT,
    num_channels: int | None = 64,
    key: Array | None = None,
) -> SoftOverlap:
    """Overlap of the channels' NNK neighbourhoods within a batch, differentiable to the points.

    Each image is a query among the B - 1 others. With the weights ``theta_c`` of an image in
    channel c, laid out over the batch, the value of an image is, by ``kind``,

    - ``"ruzicka"``: ``sum min(p_c, p_d) / sum max(p_c, p_d)`` of ``p = theta / sum theta`` with a
      smooth minimum,
    - ``"cosine"``: ``theta_c . theta_d / (|theta_c| |theta_d|)``,
    - ``"support"``: ``s_c . s_d / (|s_c|^2 + |s_d|^2 - s_c . s_d)`` of the saturated weights
      ``s = theta / (theta + 0.02)``, a soft Jaccard index.

    An image without neighbours in either channel says nothing and is left out. Points that coincide
    up to the rounding of a matrix product (``16 eps (|x|^2 + |y|^2)``, centred) count as the same.
    As in `jnnk.NNKGraph`, candidates that coincide with their query share its weight equally,
    which is a constant, and only a channel all of whose images coincide has no neighbours.

    Args:
        activations: (B, H, W, C) or (B, D, C); half precisions are computed in float32.
        num_neighbors: K candidates of each image, at most B - 1 are used.
        kind: a key of ``SOFT_OVERLAP_KINDS``.
        similarity: `jnnk.graphs.gaussian` or `jnnk.graphs.cosine`.
        num_channels: the most channels compared, since the work grows with their square; None for
            all. Of a wider layer ``key`` draws that many.
        key: PRNG key; needed where channels are drawn.

    Returns:
        A `SoftOverlap`.

    Raises:
        ValueError: on wrong shapes or options, or without a key where channels are drawn.
    """
    points, channels = channel_points(activations, num_channels=num_channels, key=key)
    if kind not in SOFT_OVERLAP_KINDS:
        raise ValueError(f"kind: expected one of {', '.join(SOFT_OVERLAP_KINDS)}, got {kind!r}")
    if not isinstance(similarity, Gaussian | Cosine):
        raise ValueError(f"similarity: expected gaussian() or cosine(), got {similarity!r}")
    if points.shape[1] < 2:
        raise ValueError(f"activations: expected those of at least 2 images, got {points.shape[1]}")
    num_neighbors = whole_number("num_neighbors", num_neighbors)
    finite = jnp.all(jnp.isfinite(points), axis=2)
    safe = jnp.where(finite[..., None], points, 0)
    squares, unit = _squared_distances(safe, finite, similarity)
    candidates, weights, converged = _neighborhoods(
        squares, unit, finite, num_neighbors, similarity
    )
    summed, counted = _compared(candidates, weights, converged, SOFT_OVERLAP_KINDS[kind])
    compared = pairs_of(jnp.any(weights > 0, axis=(1, 2))) & (counted > 0)
    pairs = jnp.where(compared, summed / jnp.maximum(counted, 1), 0)
    return SoftOverlap(pairs, compared, converged, channels)


def _squared_distances(
    points: Array, finite: Array, similarity: RadialSimilarity
) -> tuple[Array, Array]:
    """(C, B, B), exactly 0 for coinciding points, in squares of the units (C,) of length."""
    embedded = jax.vmap(similarity.embed)(points)
    center, unit = jax.vmap(frame_of)(embedded, finite)
    embedded = (embedded - center[:, None]) / unit[:, None, None]
    inner = contract("cid,cjd->cij", embedded, embedded)
    norms = jnp.diagonal(inner, axis1=1, axis2=2)
    scale = norms[:, :, None] + norms[:, None, :]
    squares = scale - 2 * inner
    apart = squares > _ROUNDING * jnp.finfo(squares.dtype).eps * scale
    apart &= ~jnp.eye(points.shape[1], dtype=bool)[None]
    return jnp.where(apart, squares, 0), unit


def _neighborhoods(
    squares: Array, unit: Array, finite: Array, num_neighbors: int, similarity: RadialSimilarity
) -> tuple[Array, Array, Array]:
    """Candidates and NNK weights (C, B, K), and which problems were solved."""
    num_channels, size, _ = squares.shape
    num_neighbors = min(num_neighbors, size - 1)
    missing = jnp.eye(size, dtype=bool)[None] | ~finite[:, None, :]
    ranked = jnp.where(missing, -jnp.inf, -jax.lax.stop_gradient(squares))
    ranked, candidates = jax.lax.top_k(ranked, num_neighbors)
    valid = (ranked > -jnp.inf) & finite[:, :, None]
    near = jnp.take_along_axis(squares, candidates, axis=2)
    both = candidates[..., :, None] * size + candidates[..., None, :]
    between = jnp.take_along_axis(
        squares.reshape(num_channels, size**2),
        both.reshape(num_channels, math.prod(both.shape[1:])),
        axis=1,
    ).reshape(both.shape)

    def problems(near: Array, between: Array, valid: Array, unit: Array) -> tuple[Array, Array]:
        resolved = similarity.resolved(near, valid, unit)
        widths = resolved.widths(near, valid, unit)
        gram = resolved.of_squared_distances(between, widths[:, None, None])
        return gram, resolved.of_squared_distances(near, widths[:, None])

    gram, cross = jax.vmap(problems)(near, between, valid, unit)
    same = valid & (near == 0)
    solution = solve_nnk(gram, cross, mask=valid & ~jnp.any(same, axis=2, keepdims=True))
    both_finite = finite[:, :, None] & finite[:, None, :]
    dead = ~jnp.any((squares > 0) & both_finite, axis=(1, 2), keepdims=True)
    number = jnp.sum(same, axis=2, keepdims=True).astype(squares.dtype)
    weights = jnp.where(same & ~dead, 1 / jnp.maximum(number, 1), solution.weights)
    return candidates, weights, solution.converged & finite


def _compared(
    candidates: Array, weights: Array, converged: Array, kind: SoftKind
) -> tuple[Array, Array]:
    """Sum over images of the soft overlap of every two channels, and how many images count."""
    features = jnp.swapaxes(kind.code(weights), 0, 1)  # images first
    size, num_channels, _, num_features = features.shape
    image, channel = jnp.ogrid[:size, :num_channels]
    table = jnp.zeros((size, num_channels, size, num_features), features.dtype)
    table = table.at[image[..., None], channel[..., None], jnp.swapaxes(candidates, 0, 1)].set(
        features, unique_indices=True
    )
    table = table.reshape(size, num_channels, size * num_features)
    shared = contract("bcf,bdf->bcd", table, table)
    sizes = jnp.sum(jnp.square(features), axis=(2, 3))
    present = (sizes > 0) & converged.T
    both = present[:, :, None] & present[:, None, :]
    safe = jnp.where(present, sizes, 1)  # an empty neighbourhood shares nothing: its value is 0
    value = kind.similarity(shared, safe[:, :, None], safe[:, None, :])
    counted = converged.T[:, :, None] & converged.T[:, None, :]
    counted &= present[:, :, None] | present[:, None, :]
    return jnp.where(both, value, 0).sum(0), counted.astype(value.dtype).sum(0)
