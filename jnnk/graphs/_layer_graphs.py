"""Both kinds of graphs of one layer: of each of its channels, and of its whole vectors."""

import concurrent.futures
from typing import NotRequired, TypedDict, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jnnk.graphs._channels import channelwise_nnk_graph
from jnnk.graphs._graph import NNKGraph
from jnnk.graphs._nnk_graph import nnk_graph
from jnnk.graphs._sharded import sharded_nnk_graph
from jnnk.graphs._similarity import Similarity
from jnnk.parallel import gather


class GraphOptions(TypedDict):
    """The options of `jnnk.graphs.nnk_graph` that the graphs of a layer share.

    Attributes:
        num_neighbors: K.
        similarity: of two points.
    """

    num_neighbors: int
    similarity: NotRequired[Similarity]


def layer_graphs(
    activations: np.ndarray, *, mesh: Mesh | None = None, **options: Unpack[GraphOptions]
) -> tuple[NNKGraph, NNKGraph]:
    """The channels' graphs, with a leading axis C, and the one of the whole layer's vectors.

    Both lie whole on this process' first device, whatever mesh shares the work.

    Args:
        activations: (N, H, W, C).
        mesh: of devices that share the work, see `jnnk.parallel.parse_mesh`.
        **options: of `jnnk.graphs.nnk_graph`.
    """
    vectors = activations.reshape(len(activations), -1)
    if mesh is None:
        with concurrent.futures.ThreadPoolExecutor(1) as beside:  # compilation takes one core alone
            whole = beside.submit(nnk_graph, jnp.asarray(vectors), **options)
            graph = channelwise_nnk_graph(jnp.asarray(activations), **options)
            return graph, whole.result()
    # One after the other: two programs launched in different orders on different devices deadlock.
    channels, alone = (
        gather(sharded_nnk_graph(points, mesh=mesh, **options))
        for points in (activations, vectors[:, :, None])
    )
    return jax.tree.map(_on_device, channels), jax.tree.map(_first_on_device, alone)


def _on_device(field: np.ndarray) -> jax.Array:
    return jnp.asarray(field)


def _first_on_device(field: np.ndarray) -> jax.Array:
    return jnp.asarray(field[0])
