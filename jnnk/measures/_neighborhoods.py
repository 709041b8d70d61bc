"""Neighbourhoods: the neighbours of every image in every channel, and what each of them counts for.

The neighbourhood of image n in channel c is the support ``S_c(n)`` of its NNK weights: identifiers
of images. All measures that compare channels look identifiers of one up in another.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jnnk._core.whole_numbers import whole_number
from jnnk.graphs import NNKGraph

# With so few neighbours XLA's CPU compiler makes scalar code, five times as slow: such
# neighbourhoods are filled up to 16.
FEW = range(6, 16)


class Neighborhoods(NamedTuple):
    """Neighbourhoods of images in C channels, with images in the last axis.

    Attributes:
        indices: int32 (..., C, K, B), identifiers of the candidates.
        strengths: (..., C, K, B), what each counts for, 0 for what is no neighbour; a bool says
            whether it is one.
    """

    indices: Array
    strengths: Array


def check_channels(graph: NNKGraph) -> None:
    """Raises ValueError unless the graph has a leading axis of channels."""
    if graph.weights.ndim != 3:
        raise ValueError(
            "graph: expected axes (channel, image, neighbour), as channelwise_nnk_graph gives, "
            f"got weights of shape {graph.weights.shape}"
        )


def support_weights(graph: NNKGraph) -> Array:
    """The weights, with everything that is no neighbour (NaN included) at exactly zero."""
    return jnp.where(graph.weights > 0, graph.weights, 0)


def degrees(weights: Array) -> Array:
    """The number of neighbours of every image: int32 (..., Q) of weights (..., Q, K)."""
    return (weights > 0).sum(-1, dtype=jnp.int32)


def dead_pairs(weights: Array, other: Array) -> Array:
    """Which pairs of a channel of one graph and one of another hold a dead one, bool (C, C').

    Args:
        weights: (C, Q, K).
        other: (C', Q, K').
    """
    dead, other_dead = (~(each > 0).any((1, 2)) for each in (weights, other))
    return dead[:, None] | other_dead[None, :]


def split_blocks(indices: Array, strengths: Array, block_size: int) -> Neighborhoods:
    """Neighbourhoods in blocks of B images.

    Args:
        indices: int32 (C, Q, K).
        strengths: (C, Q, K), see `Neighborhoods`.
        block_size: B.

    Returns:
        `Neighborhoods` (number of blocks, C, K', B), where K' is K or, of few, 16; images without
        neighbours fill up the last block, and candidates that are none the neighbourhoods.
    """
    block_size = whole_number("block_size", block_size)
    num_channels, num_queries, num_neighbors = indices.shape
    number = -(-num_queries // block_size)
    missing = FEW.stop - num_neighbors if num_neighbors in FEW else 0
    padding = ((0, 0), (0, number * block_size - num_queries), (0, missing))

    def split(array: Array) -> Array:
        array = jnp.pad(array, padding)
        array = array.reshape(num_channels, number, block_size, num_neighbors + missing)
        return array.transpose(1, 0, 3, 2)

    return Neighborhoods(split(indices), split(strengths))


def strengths_of(identifiers: Array, channel: Neighborhoods) -> Array:
    """What identifiers count for in one channel.

    Args:
        identifiers: int32 (..., K, B), images in the last axis.
        channel: `Neighborhoods` (K', B) of the same images.

    Returns:
        (..., K, B), the channel's strength of each identifier, zero where it is no neighbour.
    """
    found = jnp.zeros(identifiers.shape, channel.strengths.dtype)
    neighbors = jnp.where(channel.strengths > 0, channel.indices, -1)
    shape = (1,) * (identifiers.ndim - 1) + (-1,)
    for neighbor, strength in zip(neighbors, channel.strengths, strict=True):
        # Unrolled, so that all K' comparisons are one fused loop with no (K, K') intermediate, and
        # a selection instead of a sum, which is eight times as fast on CPU.
        found = jnp.where(identifiers == neighbor.reshape(shape), strength.reshape(shape), found)
    return found
