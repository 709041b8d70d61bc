"""One NNK graph per channel of a layer."""

import concurrent.futures
import functools

import jax
import jax.numpy as jnp

from jnnk.graph import NNKGraph, nnk_graph
from jnnk.similarity import DEFAULT, Similarity

# Channels in flight on a CPU. XLA runs most of a channel's program on one core; the programs hold
# no LAPACK calls, which deadlock when two run at once (JAX 0.10.2).
_CPU_STREAMS = 2


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

    A point of channel c is ``activations[n, :, :, c]`` flattened. Channels go one at a time (two
    on a CPU, outside of jit), so memory is that of one or two `nnk_graph` beside the input and
    the answer. Works under jit, vmap and differentiation as well.

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
            f"{activations.shape}; give dense features (N, C) as (N, 1, C)"
        )
    graph_of = functools.partial(
        nnk_graph,
        num_neighbors=num_neighbors,
        similarity=similarity,
        tol=tol,
        max_steps=max_steps,
        block_size=block_size,
        method=method,
    )
    num_images, num_channels = activations.shape[0], activations.shape[-1]
    points = activations.reshape(num_images, -1, num_channels)
    on_cpu = jax.default_backend() == "cpu"
    if isinstance(points, jax.core.Tracer) or not on_cpu or num_channels == 0:
        return jax.lax.map(graph_of, jnp.moveaxis(points, -1, 0))

    is_double = jax.dtypes.canonicalize_dtype(points.dtype) == jnp.float64

    def channel(index):
        with jax.enable_x64(is_double):  # as a context it holds for the thread that set it alone
            return jax.block_until_ready(graph_of(jnp.asarray(points[:, :, index])))

    # The first one alone: threads that meet a program not yet compiled would compile it each.
    graphs = [channel(0)]
    with concurrent.futures.ThreadPoolExecutor(_CPU_STREAMS) as streams:
        graphs += streams.map(channel, range(1, num_channels))
    return jax.tree.map(lambda *fields: jnp.stack(fields), *graphs)
