"""One NNK graph per channel of a layer."""

import functools

import jax
import jax.numpy as jnp

from jnnk.graph import NNKGraph, nnk_graph
from jnnk.similarity import DEFAULT, Similarity


@functools.partial(
    jax.jit, static_argnames=("num_neighbors", "similarity", "block_size", "method", "max_steps")
)
def channelwise_nnk_graph(
    activations: jax.Array,
    *,
    num_neighbors: int,
    similarity: Similarity = DEFAULT,
    tol: float = 1e-5,
    max_steps: int = 500,
    block_size: int = 256,
    method: str = "exact",
) -> NNKGraph:
    """The NNK graph of each channel (arXiv 2110.11400): images as seen by one channel alone.

    A point of channel c is ``activations[n, :, :, c]`` flattened. Channels go one at a time, so
    memory is that of one `nnk_graph` beside the input and the answer.

    Args:
        activations: (N, H, W, C), or (N, D, C) already flattened; floating.
        num_neighbors: K, candidates of each image.
        similarity: see `jnnk.graph.nnk_graph`.
        tol: see `jnnk.qp.solve_nnk`.
        max_steps: see `jnnk.qp.solve_nnk`.
        block_size: see `jnnk.graph.nnk_graph`.
        method: see `jnnk.neighbors.nearest_neighbors`.

    Returns:
        An `NNKGraph` whose fields have a leading axis C. A dead channel (every image the same) has
        no edges: all its weights are 0.

    Raises:
        ValueError: on wrong shapes or options.
    """
    if activations.ndim not in (3, 4):
        raise ValueError(
            "activations must be (N, H, W, C) or (N, D, C), got shape "
            f"{activations.shape}; of dense features (N, C) make (N, 1, C) or (N, C, 1)"
        )
    points = activations.reshape(activations.shape[0], -1, activations.shape[-1])

    def channel(points):
        return nnk_graph(
            points,
            num_neighbors=num_neighbors,
            similarity=similarity,
            tol=tol,
            max_steps=max_steps,
            block_size=block_size,
            method=method,
        )

    return jax.lax.map(channel, jnp.moveaxis(points, 2, 0))
