"""Overlap of channels: mean similarity of their NNK neighbourhoods over images.

A channel-wise NNK graph gives every image ``n`` and channel ``c`` a neighbourhood: the support
``S_c(n)`` of its NNK weights. Two channels that say the same thing have the same neighbourhoods,
so overlap is a similarity of ``S_c(n)`` and ``S_d(n)`` averaged over images (Bonet, Ortega,
Ruiz-Hidalgo and Shekkizhar, "Channel redundancy and overlap in convolutional neural networks with
channel-wise NNK graphs", arXiv 2110.11400; that text's own formula was not available, so the usual
similarities of sets and of weights are all here).
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jnnk._core import typed_jax
from jnnk._core.whole_numbers import whole_number
from jnnk.graphs import NNKGraph
from jnnk.measures._comparison import Comparison, Means, comparison, means_over_images
from jnnk.measures._membership import FEWEST_CHANNELS, LARGEST, table_comparison
from jnnk.measures._neighborhoods import (
    Neighborhoods,
    check_channels,
    dead_pairs,
    split_blocks,
    support_weights,
)
from jnnk.measures._overlap_kinds import OverlapKind, overlap_kind

# Values of pairs of channels and images held at once for each sample of the images where neighbours
# are counted in tables: about what a third-level cache holds.
_TABLE_VALUES = 2**22
# Elsewhere, and images that keep XLA's loops over them long.
_VALUES, _FEWEST_IMAGES = 2**25, 32


@typed_jax.jit(static_argnames=("kind", "block_size"))
def channel_overlap(
    graph: NNKGraph, *, kind: str = "jaccard", block_size: int = 128
) -> Float[Array, "C C"]:
    """Overlap of two channels: mean similarity of their NNK neighbourhoods over images.

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

    The neighbours of an image that coincides with more than K others (in a ReLU channel, one of
    those it is silent for) are the K of them of the smallest indices, see `jnnk.NNKGraph`. Where
    images come in random order, that is a bottom-K sketch of the set (Broder 1997): ties by index
    make the Jaccard index of two channels' kept sets an estimate of that of the whole sets of tied
    images. So channels that are silent for the same images overlap there. Channels with independent
    silent sets of shares a and b of the images overlap by about ``a b / (a + b - a b)`` where both
    are silent, which `jnnk.measures.chance_overlap` does not know of.

    Args:
        graph: leading axis C: indices and weights of shape (C, Q, K).
        kind: which comparison.
        block_size: images compared at once, at most; bounds the memory.

    Returns:
        (C, C), symmetric.

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
    every_image = jnp.ones((1, graph.weights.shape[1]), graph.weights.dtype)
    return weighted_overlap(graph, graph, every_image, kind=kind, block_size=block_size)[0]


@typed_jax.jit(static_argnames=("kind", "block_size"))
def overlap_by_image(
    graph: NNKGraph, *, kind: str = "jaccard", block_size: int = 128
) -> Float[Array, "Q C C"]:
    """Similarity of every two channels' NNK neighbourhoods, image by image.

    `jnnk.channel_overlap` is its mean over images.

    Args:
        graph: leading axis C: indices and weights of shape (C, Q, K).
        kind: see `jnnk.channel_overlap`.
        block_size: images compared at once; bounds the memory beside the answer.

    Returns:
        (Q, C, C); NaN for dead channels, and for images where both supports are empty.

    Raises:
        ValueError: for an unknown kind or a graph that has not three axes.
    """
    check_channels(graph)
    weights = support_weights(graph)
    blocks = _blocks(graph, weights, overlap_kind(kind), block_size)
    compare = comparison(overlap_kind(kind))

    def values(block: Neighborhoods) -> Array:
        value, counted = compare.values(block, block)
        return jnp.where(counted, value, jnp.nan)

    images = jnp.moveaxis(typed_jax.lax_map(values, blocks), -1, 1)
    number, size, *pairs = images.shape
    images = images.reshape(number * size, *pairs)[: weights.shape[1]]
    return jnp.where(dead_pairs(weights, weights), jnp.nan, images)


@typed_jax.jit(static_argnames=("kind", "block_size"))
def cross_overlap(
    graph: NNKGraph, other: NNKGraph, *, kind: str = "jaccard", block_size: int = 128
) -> Float[Array, "C other_C"]:
    """Overlap of every channel of one graph with every channel of another, of the same images.

    Of two layers, two epochs, two networks: a block of what `channel_overlap` gives for the two
    graphs joined along the channel axis.

    Args:
        graph: leading axis C: indices and weights of shape (C, Q, K).
        other: leading axis C': (C', Q, K'), the same images in the same order.
        kind: see `channel_overlap`.
        block_size: images compared at once, at most; bounds the memory.

    Returns:
        (C, C'); NaN in the rows and columns of dead channels.

    Raises:
        ValueError: for an unknown kind, graphs that have not three axes, or of different numbers of
            images.

    Examples:
        >>> from jnnk import channelwise_nnk_graph
        >>> images = jnp.arange(6.0)[:, None] ** jnp.array([1.0, 1.0, 0.0])
        >>> graph = channelwise_nnk_graph(images[:, None], num_neighbors=3)
        >>> import jax
        >>> print(cross_overlap(graph, jax.tree.map(lambda field: field[:2], graph)))
        [[ 1.  1.]
         [ 1.  1.]
         [nan nan]]
    """
    check_channels(graph)
    check_channels(other)
    num_images, num_others = graph.weights.shape[1], other.weights.shape[1]
    if num_images != num_others:
        raise ValueError(
            f"other: expected a graph of the same {num_images} images, got one of {num_others}"
        )
    every_image = jnp.ones((1, num_images), graph.weights.dtype)
    return weighted_overlap(graph, other, every_image, kind=kind, block_size=block_size)[0]


@typed_jax.jit(static_argnames=("kind", "block_size"))
def weighted_overlap(
    graph: NNKGraph,
    other: NNKGraph,
    multiplicities: Array,
    *,
    kind: str = "jaccard",
    block_size: int = 128,
) -> Array:
    """`cross_overlap` as if every image were there several times or not at all.

    All samples come from one pass over the images, as a product of the multiplicities with the
    values of each block.

    Args:
        graph: leading axis C, as for `cross_overlap`.
        other: leading axis C', the same images.
        multiplicities: (R, Q), at least 0: how often each image counts in each of R samples.
        kind: which comparison.
        block_size: images compared at once.

    Returns:
        (R, C, C'); NaN for dead channels, and where a sample has no image that says anything.

    Raises:
        ValueError: as `channel_overlap`.
    """
    check_channels(graph)
    block_size = whole_number("block_size", block_size)
    means = _means(graph, other, multiplicities, kind=overlap_kind(kind), block_size=block_size)
    return means.of_pairs


@typed_jax.jit
def overlap_and_sums(graph: NNKGraph, pairs: Array) -> tuple[Array, Array]:
    """`channel_overlap`, and (Q,) the sum of an image's values over pairs with weights (C, C)."""
    every_image = jnp.ones((1, graph.weights.shape[1]), graph.weights.dtype)
    kind = overlap_kind("jaccard")
    means = _means(graph, graph, every_image, kind=kind, block_size=128, pairs=pairs)
    return means.of_pairs[0], jnp.asarray(means.of_images)


def _means(
    graph: NNKGraph,
    other: NNKGraph,
    samples: Array,
    *,
    kind: OverlapKind,
    block_size: int,
    pairs: Array | None = None,
) -> Means:
    """`Means` of the comparison of two graphs, NaN of pairs with dead channels."""
    weights, other_weights = support_weights(graph), support_weights(other)

    def means_by(compare: Comparison, block_size: int) -> Means:
        blocks = _blocks(graph, weights, kind, block_size)
        other_blocks = _blocks(other, other_weights, kind, block_size)
        return means_over_images(compare, blocks, other_blocks, samples, pairs=pairs)

    num_pairs = max(1, len(weights) * len(other_weights))

    def by_comparing() -> Means:
        images = images_at_once(num_pairs, num_samples=len(samples), block_size=block_size)
        return means_by(comparison(kind), images)

    def by_tables() -> Means:
        images = max(1, _TABLE_VALUES * len(samples) // num_pairs)
        return means_by(table_comparison(kind), min(images, block_size))

    if not kind.is_of_sets or min(len(weights), len(other_weights)) < FEWEST_CHANNELS:
        means = by_comparing()
    else:
        largest = jnp.maximum(
            *(
                jnp.max(jnp.where(theta > 0, indices, -1), initial=-1)
                for theta, indices in ((weights, graph.indices), (other_weights, other.indices))
            )
        )
        means = typed_jax.cond(largest < LARGEST, by_tables, by_comparing)
    is_dead = dead_pairs(weights, other_weights)
    return means._replace(of_pairs=jnp.where(is_dead, jnp.nan, means.of_pairs))


def images_at_once(num_pairs: int, *, num_samples: int = 1, block_size: int = 128) -> int:
    """Images compared at once where identifiers are compared, of so many pairs of channels."""
    return min(block_size, max(_FEWEST_IMAGES, _VALUES * num_samples // num_pairs))


def _blocks(graph: NNKGraph, weights: Array, kind: OverlapKind, block_size: int) -> Neighborhoods:
    """The neighbourhoods of a graph in blocks of images, with the strengths of a kind."""
    return split_blocks(graph.indices, kind.strength(weights), block_size)
