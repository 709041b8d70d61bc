"""One NNK graph per channel of a layer."""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Shaped

from jnnk._core import typed_jax
from jnnk._core.arrays import ArrayLike
from jnnk._core.precision import working_dtype
from jnnk.graphs._graph import NNKGraph
from jnnk.graphs._neighbors import check_array, check_options
from jnnk.graphs._nnk_graph import nnk_graph
from jnnk.graphs._similarity import DEFAULT, Similarity
from jnnk.parallel._streams import can_stream, map_streams


def channelwise_nnk_graph(
    activations: Shaped[ArrayLike, "N *D C"],
    *,
    num_neighbors: int,
    similarity: Similarity = DEFAULT,
    tol: float | jax.Array = 1e-5,
    max_steps: int = 500,
    block_size: int = 256,
    method: str = "exact",
) -> NNKGraph:
    """The NNK graph of each channel (arXiv 2110.11400): images as seen by one channel alone.

    A point of channel c is ``activations[n, :, :, c]`` flattened. Channels go one at a time (two
    on a CPU, outside of jit), so memory is that of one or two `nnk_graph` beside the input and
    the answer. Works under jit, vmap and differentiation as well.

    Args:
        activations: (N, H, W, C), or (N, D, C) already flattened; half precisions and integers
            are computed in float32. Any size may be 0.
        num_neighbors: K, candidates of each image.
        similarity: see `jnnk.graphs.nnk_graph`.
        tol: see `jnnk.graphs.solve_nnk`.
        max_steps: see `jnnk.graphs.solve_nnk`.
        block_size: see `jnnk.graphs.nnk_graph`.
        method: see `jnnk.graphs.nearest_neighbors`.

    Returns:
        An `NNKGraph` whose fields have a leading axis C. A dead channel (every image the same) has
        no edges: all its weights are 0.

    Raises:
        ValueError: on wrong shapes, dtypes or options, and on lists.

    Examples:
        Six images as three channels see them: the first two alike, the third dead.

        >>> images = jnp.arange(6.0)[:, None] ** jnp.array([1.0, 1.0, 0.0])
        >>> graph = channelwise_nnk_graph(images[:, None], num_neighbors=3)
        >>> print(graph.weights.shape)
        (3, 6, 3)
        >>> print((graph.weights > 0).sum((1, 2)))  # edges by channel
        [10 10  0]
    """
    check_array("activations", activations, jnp.floating, jnp.integer, jnp.bool_)
    points = flat_channels(activations)
    num_neighbors, block_size = check_options(num_neighbors, block_size, method)
    static = {
        "num_neighbors": num_neighbors,
        "similarity": similarity,
        "max_steps": max_steps,
        "block_size": block_size,
        "method": method,
    }
    num_channels = points.shape[-1]
    if num_channels == 0 or not can_stream(points):
        graph_of = functools.partial(nnk_graph, tol=tol, **static)
        return typed_jax.lax_map(graph_of, jnp.moveaxis(points, -1, 0))

    channels = ((jnp.asarray(points[:, :, channel]),) for channel in range(num_channels))
    shared = {"tol": jnp.asarray(tol, working_dtype(points.dtype))}
    graphs = map_streams(nnk_graph, channels, static=static, shared=shared)
    return NNKGraph(*(jnp.stack(fields) for fields in zip(*graphs, strict=True)))


def flat_channels(activations: ArrayLike) -> ArrayLike:
    """Activations (N, H, W, C) or (N, D, C) as (N, D, C); ValueError on other shapes."""
    if activations.ndim not in (3, 4):
        raise ValueError(
            "activations: expected (N, H, W, C) or (N, D, C), got shape "
            f"{activations.shape}; give dense features (N, C) as (N, 1, C)"
        )
    num_images, *sizes, num_channels = activations.shape
    return activations.reshape(num_images, math.prod(sizes), num_channels)
