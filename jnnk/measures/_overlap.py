"""Channel overlap: how far two channels agree on which images are neighbours.

A channel-wise NNK graph gives every image ``n`` and channel ``c`` a neighbourhood: the support
``S_c(n)`` of its NNK weights. Two channels that say the same thing have the same neighbourhoods,
so overlap is a similarity of ``S_c(n)`` and ``S_d(n)`` averaged over images (Bonet, Ortega,
Ruiz-Hidalgo and Shekkizhar, "Channel redundancy and overlap in convolutional neural networks with
channel-wise NNK graphs", arXiv 2110.11400; that text's own formula was not available, so the usual
similarities of sets and of weights are all here).

The neighbours of an image that coincides with more than K others (in a ReLU channel, one of those
it is silent for) are the K of them of the smallest indices, see `jnnk.NNKGraph`. Where images
come in random order, that is a bottom-K sketch of the set (Broder 1997): ties by index make the
Jaccard index of two channels' kept sets an estimate of that of the whole sets of tied images. So
channels that are silent for the same images overlap there. Channels with independent silent sets
of shares a and b of the images overlap by about ``a b / (a + b - a b)`` where both are silent,
which `chance_overlap` does not know of.

The work is ``C^2 Q K^2`` comparisons of identifiers, made directly, with images in the innermost
axis of a block: memory is that of a block and of the answer, whatever the number of points.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.special import gammaln

from jnnk._core.whole_numbers import whole_number
from jnnk.graphs import NNKGraph

Comparison = Callable[[tuple[Array, Array], tuple[Array, Array]], tuple[Array, Array]]


class OverlapKind(NamedTuple):
    """How two neighbourhoods are compared.

    Attributes:
        strength: ``(weights) -> strengths``, both (..., K): what a neighbour counts for.
        combine: ``(strength, strength) -> contribution`` of a neighbour found in both.
        similarity: ``(shared, size, other_size) -> value``, from the summed contributions and
            the summed strengths of either side.
    """

    strength: Callable[[Array], Array]
    combine: Callable[[Array, Array], Array]
    similarity: Callable[[Array, Array, Array], Array]


def _ratio(numerator: Array, denominator: Array, otherwise: float = 0.0) -> Array:
    """``numerator / denominator``, and ``otherwise`` (no NaN in the gradient) over zero."""
    positive = denominator > 0
    return jnp.where(positive, numerator / jnp.where(positive, denominator, 1), otherwise)


def _indicator(weights: Array) -> Array:
    return (weights > 0).astype(weights.dtype)


def _shares(weights: Array) -> Array:
    return _ratio(weights, weights.sum(-1, keepdims=True))


def _unit(weights: Array) -> Array:
    # Before squaring, since tiny weights must not underflow; it cancels, and so do derivatives.
    scale = jax.lax.stop_gradient(weights).max(-1, keepdims=True)
    scaled = _ratio(weights, scale)
    squares = jnp.square(scaled).sum(-1, keepdims=True)
    return _ratio(scaled, jnp.sqrt(jnp.where(squares > 0, squares, 1)))


def _shared(shared: Array, size: Array, other: Array) -> Array:
    return shared


OVERLAP_KINDS: dict[str, OverlapKind] = {
    "jaccard": OverlapKind(_indicator, jnp.minimum, lambda s, a, b: _ratio(s, a + b - s)),
    "overlap": OverlapKind(_indicator, jnp.minimum, lambda s, a, b: _ratio(s, jnp.minimum(a, b))),
    "dice": OverlapKind(_indicator, jnp.minimum, lambda s, a, b: _ratio(2 * s, a + b)),
    "weighted": OverlapKind(_shares, jnp.minimum, _shared),
    "cosine": OverlapKind(_unit, jnp.multiply, _shared),
}


def overlap_kind(name: str) -> OverlapKind:
    """The comparison called ``name``.

    Args:
        name: a key of ``OVERLAP_KINDS``.

    Returns:
        Its functions.

    Raises:
        ValueError: if there is none of that name.
    """
    if name not in OVERLAP_KINDS:
        raise ValueError(f"kind must be one of {', '.join(OVERLAP_KINDS)}; got {name!r}")
    return OVERLAP_KINDS[name]


@partial(jax.jit, static_argnames=("kind", "per_image", "block_size"))
def channel_overlap(
    graph: NNKGraph, *, kind: str = "jaccard", per_image: bool = False, block_size: int = 128
) -> Array:
    """Overlap of the neighbourhoods of every two channels.

    With the support ``S_c(n)`` and the weights ``theta_c(n)`` of image n in channel c, the value
    of an image is, by ``kind``,

    - ``"jaccard"``:  ``|S_c & S_d| / |S_c | S_d|``,
    - ``"overlap"``:  ``|S_c & S_d| / min(|S_c|, |S_d|)``,
    - ``"dice"``:     ``2 |S_c & S_d| / (|S_c| + |S_d|)``,
    - ``"weighted"``: ``sum_j min(theta_cj / sum theta_c, theta_dj / sum theta_d)``,
    - ``"cosine"``:   ``theta_c . theta_d / (|theta_c| |theta_d|)``, on the common identifiers,

    and the overlap is its mean over the images. An image where both supports are empty says
    nothing and is left out; one where a single support is empty counts as 0. A dead channel (no
    weight in any image) has NaN in its row and column, the diagonal too. The diagonal of a live
    channel is 1.

    Args:
        graph: leading axis C: indices and weights of shape (C, Q, K).
        kind: which comparison.
        per_image: return the single images' values, (Q, C, C), NaN where left out.
        block_size: images compared at once; bounds the memory.

    Returns:
        (C, C) symmetric float array, or (Q, C, C).

    Raises:
        ValueError: for an unknown kind or a graph that has not three axes.

    Examples:
        Six images as three channels see them: the first two alike, the third dead.

        >>> from jnnk import channelwise_nnk_graph
        >>> images = jnp.arange(6.0)[:, None] ** jnp.array([1.0, 1.0, 0.0])
        >>> graph = channelwise_nnk_graph(images[:, None], num_neighbors=3)
        >>> print(channel_overlap(graph))
        [[ 1.  1. nan]
         [ 1.  1. nan]
         [nan nan nan]]
    """
    check_channels(graph)
    weights = support_weights(graph)
    num_queries = weights.shape[1]
    if not per_image:
        every_image = jnp.ones((1, num_queries), weights.dtype)
        return weighted_overlap(graph, every_image, kind=kind, block_size=block_size)[0]
    blocks = split_blocks(graph.indices, overlap_kind(kind).strength(weights), block_size)
    compare = _comparison(overlap_kind(kind))

    def values(block):
        value, counted = compare(block, block)
        return jnp.where(counted, value, jnp.nan)

    images = jnp.moveaxis(jax.lax.map(values, blocks), -1, 1)
    images = images.reshape(-1, *images.shape[2:])[:num_queries]
    return jnp.where(_dead_pairs(weights, weights), jnp.nan, images)


@partial(jax.jit, static_argnames=("kind", "block_size"))
def cross_overlap(
    graph: NNKGraph, other: NNKGraph, *, kind: str = "jaccard", block_size: int = 128
) -> Array:
    """Overlap of every channel of one graph with every channel of another, of the same images.

    Of two layers, two epochs, two networks: a block of what `channel_overlap` gives for the two
    graphs joined along the channel axis.

    Args:
        graph: leading axis C: indices and weights of shape (C, Q, K).
        other: leading axis C': (C', Q, K'), the same images in the same order.
        kind: see `channel_overlap`.
        block_size: images compared at once; bounds the memory.

    Returns:
        (C, C') floating; NaN in the rows and columns of dead channels.

    Raises:
        ValueError: for an unknown kind, graphs that have not three axes, or of different numbers of
            images.

    Examples:
        >>> from jnnk import channelwise_nnk_graph
        >>> images = jnp.arange(6.0)[:, None] ** jnp.array([1.0, 1.0, 0.0])
        >>> graph = channelwise_nnk_graph(images[:, None], num_neighbors=3)
        >>> print(cross_overlap(graph, jax.tree.map(lambda field: field[:2], graph)))
        [[ 1.  1.]
         [ 1.  1.]
         [nan nan]]
    """
    graphs = (graph, other)
    for each in graphs:
        check_channels(each)
    numbers = [each.weights.shape[1] for each in graphs]
    if numbers[0] != numbers[1]:
        raise ValueError(
            f"other must be of the same {numbers[0]} images as graph, got one of {numbers[1]}"
        )
    weights = [support_weights(each) for each in graphs]
    strength = overlap_kind(kind).strength
    blocks = [
        split_blocks(each.indices, strength(own), block_size)
        for each, own in zip(graphs, weights, strict=True)
    ]
    every_image = jnp.ones((1, numbers[0]), weights[0].dtype)
    means = _means(_comparison(overlap_kind(kind)), *blocks, every_image)[0]
    return jnp.where(_dead_pairs(*weights), jnp.nan, means)


@partial(jax.jit, static_argnames=("kind", "block_size"))
def weighted_overlap(
    graph: NNKGraph, multiplicities: Array, *, kind: str = "jaccard", block_size: int = 128
) -> Array:
    """`channel_overlap` as if every image were there several times or not at all.

    All samples come from one pass over the images, as a product of the multiplicities with the
    values of each block.

    Args:
        graph: leading axis C, as for `channel_overlap`.
        multiplicities: (R, Q), at least 0: how often each image counts in each of R samples.
        kind: which comparison.
        block_size: images compared at once.

    Returns:
        (R, C, C); NaN for dead channels, and where a sample has no image that says anything.

    Raises:
        ValueError: as `channel_overlap`.
    """
    check_channels(graph)
    weights = support_weights(graph)
    blocks = split_blocks(graph.indices, overlap_kind(kind).strength(weights), block_size)
    means = _means(_comparison(overlap_kind(kind)), blocks, blocks, multiplicities)
    return jnp.where(_dead_pairs(weights, weights), jnp.nan, means)


@partial(jax.jit, static_argnames=("num_candidates", "kind", "block_size"))
def chance_overlap(
    graph: NNKGraph, *, num_candidates: int, kind: str = "jaccard", block_size: int = 128
) -> Array:
    """Expected overlap of channels that have nothing in common, for the same degrees and weights.

    The null: each image's neighbours are drawn uniformly without replacement among M candidates,
    independently in every channel, with the degrees (and weights) that were observed. Then
    ``|S_c & S_d|`` is hypergeometric, ``P(i) = C(a,i) C(M-a,b-i) / C(M,b)`` for degrees a and b,
    from which the expectations of Jaccard, overlap and Dice follow; for the weighted kinds every
    two neighbours coincide with probability ``1/M``, so the expectation is
    ``sum_jk combine(theta_cj, theta_dk) / M``. Exact up to rounding, diagonal included (it says
    what an independent copy of the channel would give). Images that coincide share more than that:
    see the head of `jnnk.measures`.

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
    degrees = (weights > 0).sum(-1, dtype=jnp.int32)
    impossible = (degrees > num_candidates).any(1)
    unknown = _dead_pairs(weights, weights) | impossible[:, None] | impossible[None, :]
    blocks = split_blocks(graph.indices, overlap_kind(kind).strength(weights), block_size)
    if kind in ("weighted", "cosine"):
        compare = _comparison(overlap_kind(kind), num_candidates=max(num_candidates, 1))
        every_image = jnp.ones((1, weights.shape[1]), weights.dtype)
        expected = _means(compare, blocks, blocks, every_image)[0]
        return jnp.where(unknown, jnp.nan, expected)
    num_degrees = weights.shape[2] + 1
    table = jnp.asarray(_expected_values(num_degrees, num_candidates, kind), weights.dtype)
    product = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)

    def add(totals, strengths):
        present = strengths > 0
        of_degree = jax.nn.one_hot(present.sum(1), num_degrees, dtype=weights.dtype)
        rows, columns = (x.reshape(len(x), -1) for x in (product(of_degree, table), of_degree))
        empty = (~present.any(1)).astype(weights.dtype)
        return (totals[0] + product(rows, columns.T), totals[1] + product(empty, empty.T)), None

    nothing = jnp.zeros(unknown.shape, weights.dtype)
    (summed, empty), _ = jax.lax.scan(add, (nothing, nothing), blocks[1])
    # What fills up the last block is empty too.
    counted = blocks[1].shape[0] * blocks[1].shape[-1] - empty
    return jnp.where(unknown, jnp.nan, _ratio(summed, counted, jnp.nan))


def matched(indices: Array, other: Array, other_strengths: Array) -> Array:
    """What the neighbours found in one other channel count for there.

    Args:
        indices: (..., K, B) identifiers of neighbours, images in the last axis.
        other: (K, B) identifiers in the other channel for the same images.
        other_strengths: (K, B), zero for what is no neighbour.

    Returns:
        (..., K, B) the other channel's strength of each identifier, zero where it is no neighbour.
    """
    found = jnp.zeros(indices.shape, other_strengths.dtype)
    other = jnp.where(other_strengths > 0, other, -1)
    rank = (1,) * (indices.ndim - 1) + (-1,)
    for candidate, strength in zip(other, other_strengths, strict=True):
        # Unrolled, so that all K comparisons are one fused loop with no (K, K) intermediate, and
        # a selection instead of a sum, which is eight times as fast on CPU.
        found = jnp.where(indices == candidate.reshape(rank), strength.reshape(rank), found)
    return found


def check_channels(graph: NNKGraph) -> None:
    """Raises ValueError unless the graph has a leading axis of channels."""
    if graph.weights.ndim != 3:
        raise ValueError(
            "graph must have axes (channel, image, neighbour), as channelwise_nnk_graph gives; "
            f"got weights of shape {graph.weights.shape}"
        )


def support_weights(graph: NNKGraph) -> Array:
    """The weights, with everything that is no neighbour (NaN included) at exactly zero."""
    return jnp.where(graph.weights > 0, graph.weights, 0)


def _dead_pairs(weights: Array, other: Array) -> Array:
    """Which pairs of a channel of one graph and one of another hold a dead one, bool (C, C')."""
    dead, other_dead = (~(each > 0).any((1, 2)) for each in (weights, other))
    return dead[:, None] | other_dead[None, :]


def split_blocks(indices: Array, strengths: Array, block_size: int) -> tuple[Array, Array]:
    """Two (C, Q, K) arrays to blocks (number, C, K, B) of images, padded with zeros."""
    block_size = whole_number("block_size", block_size)
    num_channels, num_queries, num_neighbors = indices.shape
    number = -(-num_queries // block_size)
    padding = ((0, 0), (0, number * block_size - num_queries), (0, 0))

    def split(array):
        array = jnp.pad(array, padding)
        array = array.reshape(num_channels, number, block_size, num_neighbors)
        return array.transpose(1, 0, 3, 2)

    return split(indices), split(strengths)


def _comparison(kind: OverlapKind, num_candidates: int | None = None) -> Comparison:
    """Two ``(indices, strengths)`` of a block, (C, K, B) and (C', K', B), to values and "counts".

    Both are (C, C', B).

    With ``num_candidates`` the identifiers are ignored, and the contributions are those expected
    where every two neighbours coincide with probability ``1 / num_candidates``.
    """

    def shared(indices, strengths, other, other_strengths):
        if num_candidates is None:
            return kind.combine(strengths, matched(indices, other, other_strengths)).sum(1)
        total = sum(kind.combine(strengths, strength[None, None]) for strength in other_strengths)
        return total.sum(1) / num_candidates

    def compare(block, other):
        sizes = other[1].sum(1)

        def row(channel):
            indices, strengths = channel
            size = strengths.sum(0, keepdims=True)
            in_both = shared(*other, indices, strengths)
            return kind.similarity(in_both, sizes, size), (sizes > 0) | (size > 0)

        return jax.lax.map(row, block)

    return compare


def _means(
    compare: Comparison,
    blocks: tuple[Array, Array],
    other_blocks: tuple[Array, Array],
    samples: Array,
) -> Array:
    """Weighted means over the images, (R, C, C'), for multiplicities (R, Q)."""
    number, num_channels, _, block_size = blocks[1].shape
    padding = number * block_size - samples.shape[1]
    samples = jnp.pad(samples, ((0, 0), (0, padding)))
    samples = samples.reshape(-1, number, block_size).transpose(1, 0, 2)
    shape = (samples.shape[1], num_channels, other_blocks[1].shape[1])
    zeros = jnp.zeros(shape, blocks[1].dtype)

    def add(totals, block):
        *pair, sample = block
        value, counted = compare(*pair)
        weigh = partial(jnp.einsum, "rb,cdb->rcd", sample, precision=jax.lax.Precision.HIGHEST)
        return (totals[0] + weigh(value), totals[1] + weigh(counted.astype(value.dtype))), None

    (summed, counted), _ = jax.lax.scan(add, (zeros, zeros), (blocks, other_blocks, samples))
    return _ratio(summed, counted, jnp.nan)


def _expected_values(num_degrees: int, num_candidates: int, kind: str) -> np.ndarray:
    """Expectation of a set similarity by the two degrees 0, 1, ...: float64, row a, column b.

    0 for degrees above the number of candidates, which cannot be.
    """
    degree = np.arange(min(num_degrees, num_candidates + 1))
    a, b, shared = np.meshgrid(degree, degree, degree, indexing="ij")

    def log_choose(n, k):
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
