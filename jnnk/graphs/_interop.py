"""NNK graphs in the terms of other libraries: edge lists of PyTorch Geometric, networkx."""

from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from jaxtyping import Float, Int64

from jnnk._core.extras import extra
from jnnk.graphs._graph import NNKGraph

if TYPE_CHECKING:
    import networkx


class EdgeList(NamedTuple):
    """The E edges of a graph.

    Attributes:
        edge_index: source over target. A neighbour is the source and its query the
            target, the direction in which PyTorch Geometric passes messages.
        edge_weight: the NNK weights, all positive.
    """

    edge_index: Int64[np.ndarray, "2 E"]
    edge_weight: Float[np.ndarray, " E"]


def edge_list(graph: NNKGraph) -> EdgeList:
    """The edges as PyTorch Geometric writes them, in NumPy.

    ``torch_geometric.data.Data(edge_index=torch.from_numpy(edges.edge_index),
    edge_weight=torch.from_numpy(edges.edge_weight))`` takes them as they are; a message-passing
    layer then interpolates every query from its NNK neighbours.

    Args:
        graph: of one channel, on the points themselves or of queries against points.

    Returns:
        An `EdgeList`, sorted by query, then neighbour.

    Raises:
        ValueError: if the graph is channel-wise (see `NNKGraph.channel`).
    """
    indices = np.asarray(graph.indices)
    matrix = cast(Any, graph.to_scipy(num_points=int(indices.max(initial=-1)) + 1))
    edges = matrix.tocoo()  # SciPy has no annotations
    edge_index = np.stack([edges.col, edges.row]).astype(np.int64)
    return EdgeList(edge_index, edges.data)


def to_networkx(graph: NNKGraph) -> "networkx.DiGraph[int]":
    """The graph as one of networkx (``pip install 'jnnk[interop]'``).

    Args:
        graph: of one channel on the points themselves (Q = N).

    Returns:
        Nodes 0 to N - 1 with ``error``, how badly a point is reconstructed; an edge with ``weight``
        from every point to each of its neighbours.

    Raises:
        ValueError: if the graph is channel-wise or not one on its own points.
        InputError: if networkx is not installed.
    """
    with extra("interop"):
        import networkx

    network = cast(
        "networkx.DiGraph[int]",
        networkx.from_scipy_sparse_array(graph.to_scipy(), create_using=networkx.DiGraph),
    )
    errors = np.asarray(graph.errors).tolist()
    networkx.set_node_attributes(network, {i: {"error": error} for i, error in enumerate(errors)})
    return network
