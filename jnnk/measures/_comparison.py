"""Every two channels compared image by image, and the means of it over images.

The work is ``C^2 Q K^2`` comparisons of identifiers, made directly, with images in the innermost
axis of a block: memory is that of a block and of the answer, whatever the number of points. Sets in
many channels are counted otherwise, see `jnnk.measures._membership`.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jnnk._core import typed_jax
from jnnk._core.precision import contract
from jnnk.measures._neighborhoods import Neighborhoods, strengths_of
from jnnk.measures._overlap_kinds import OverlapKind, ratio


class Comparison(NamedTuple):
    """A way of comparing every channel of one graph with every channel of another.

    Attributes:
        values: from a block of one graph, `Neighborhoods` (C, K, B), and the same block of the
            other, (C', K', B), to the similarities and whether they count.
        axes: the order of the axes of these: c, d and b for C, C' and B.
    """

    values: Callable[[Neighborhoods, Neighborhoods], tuple[Array, Array]]
    axes: str = "cdb"


def comparison(kind: OverlapKind, *, num_candidates: int | None = None) -> Comparison:
    """The comparison of two blocks by the neighbours that their channels share.

    An image where both neighbourhoods are empty does not count.

    Args:
        kind: what a shared neighbour contributes, and the similarity made of the contributions.
        num_candidates: M; if given, identifiers are ignored, and the contributions are those
            expected where every two neighbours coincide with probability ``1 / M``.
    """

    def contributions(channel: Neighborhoods, others: Neighborhoods) -> Array:
        if num_candidates is None:
            return kind.combine(others.strengths, strengths_of(others.indices, channel)).sum(1)
        every_pair = (
            kind.combine(others.strengths, strength[None, None]) for strength in channel.strengths
        )
        return jnp.asarray(sum(every_pair)).sum(1) / num_candidates

    def compare(block: Neighborhoods, others: Neighborhoods) -> tuple[Array, Array]:
        other_sizes = others.strengths.sum(1)

        def with_others(channel: Neighborhoods) -> tuple[Array, Array]:
            size = channel.strengths.sum(0, keepdims=True)
            shared = contributions(channel, others)
            return kind.similarity(shared, other_sizes, size), (other_sizes > 0) | (size > 0)

        return typed_jax.lax_map(with_others, block)

    return Comparison(compare)


class Means(NamedTuple):
    """Means of a comparison over images, and over pairs of channels.

    Attributes:
        of_pairs: (R, C, C'), over the images that count, in each sample; NaN where none does.
        of_images: (Q,), each image's weighted sum over pairs; None without weights.
    """

    of_pairs: Array
    of_images: Array | None


def means_over_images(
    compare: Comparison,
    blocks: Neighborhoods,
    other_blocks: Neighborhoods,
    samples: Array,
    *,
    pairs: Array | None = None,
) -> Means:
    """Means of a comparison over the images that count, for several samples of the images.

    Args:
        compare: how.
        blocks: `Neighborhoods` (number of blocks, C, K, B) of Q images, from `split_blocks`.
        other_blocks: (number of blocks, C', K', B) of the same images.
        samples: (R, Q), how often each image counts in each sample.
        pairs: (C, C'), weights of the pairs in the sum of an image.

    Returns:
        `Means`.
    """
    number, num_channels, _, block_size = blocks.strengths.shape
    num_images = samples.shape[1]
    samples = jnp.pad(samples, ((0, 0), (0, number * block_size - num_images)))
    samples = samples.reshape(len(samples), number, block_size).transpose(1, 0, 2)
    shape = (samples.shape[1], num_channels, other_blocks.strengths.shape[1])
    zeros = jnp.zeros(shape, blocks.strengths.dtype)

    def add(
        totals: tuple[Array, Array], block: tuple[Neighborhoods, Neighborhoods, Array]
    ) -> tuple[tuple[Array, Array], Array | None]:
        own, others, sample = block
        value, counted = compare.values(own, others)
        weigh = partial(contract, f"rb,{compare.axes}->rcd", sample)
        images = None if pairs is None else contract(f"cd,{compare.axes}->b", pairs, value)
        return (totals[0] + weigh(value), totals[1] + weigh(counted.astype(value.dtype))), images

    start = (zeros, zeros)
    (summed, counted), images = jax.lax.scan(add, start, (blocks, other_blocks, samples))
    of_images = None if images is None else images.reshape(-1)[:num_images]
    return Means(ratio(summed, counted, otherwise=jnp.nan), of_images)
