"""NNK graphs as sparse adjacency matrices."""

from typing import Literal

import numpy as np
import scipy.sparse

from jnnk.graph import NNKGraph


def directed_adjacency(graph: NNKGraph, *, num_points: int | None = None) -> scipy.sparse.csr_array:
    """The weights as a sparse matrix (Q, N): row i holds the neighbours of query i.

    Args:
        graph: of one channel, fields without a leading axis.
        num_points: N; by default the number of queries (a graph on the points themselves).

    Returns:
        float sparse matrix without explicit zeros.

    Raises:
        ValueError: if the graph has a leading axis or indices of N and more.
    """
    weights, indices = np.asarray(graph.weights), np.asarray(graph.indices)
    if weights.ndim != 2:
        raise ValueError(f"graph must be one graph with weights (Q, K), got {weights.shape}")
    num_queries = weights.shape[0]
    num_points = num_queries if num_points is None else num_points
    rows, slots = np.nonzero(weights > 0)
    columns = indices[rows, slots]
    if columns.size and columns.max() >= num_points:
        raise ValueError(f"num_points is {num_points}, but a neighbour has index {columns.max()}")
    return scipy.sparse.csr_array(
        (weights[rows, slots], (rows, columns)), shape=(num_queries, num_points)
    )


def symmetric_adjacency(
    graph: NNKGraph, *, keep: Literal["smaller_error", "larger_weight"] = "smaller_error"
) -> scipy.sparse.csr_array:
    """One undirected graph from the two directions of each pair.

    Args:
        graph: of one channel on the points themselves (Q = N).
        keep: which of ``w_ij`` and ``w_ji`` an edge takes: that of the endpoint with the smaller
            reconstruction error, as the authors of arXiv 1910.09383 do (a pair whose better
            endpoint gives it no weight is dropped; at equal errors the larger weight is kept), or
            the larger of the two.

    Returns:
        (N, N) symmetric sparse matrix without explicit zeros.

    Raises:
        ValueError: if ``keep`` is not one of the two or the graph is not one on its own points.
    """
    adjacency = directed_adjacency(graph)
    if keep == "larger_weight":
        return adjacency.maximum(adjacency.T).tocsr()
    if keep != "smaller_error":
        raise ValueError(f"keep must be 'smaller_error' or 'larger_weight', got {keep!r}")
    errors = np.asarray(graph.errors)
    edges = adjacency.tocoo()
    own = errors[edges.row] <= errors[edges.col]
    trusted = scipy.sparse.csr_array(
        (edges.data[own], (edges.row[own], edges.col[own])), shape=adjacency.shape
    )
    return trusted.maximum(trusted.T).tocsr()
