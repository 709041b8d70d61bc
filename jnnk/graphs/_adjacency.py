"""One undirected graph from the two directions of an NNK graph."""

from typing import Any, Literal, cast

import numpy as np
import scipy.sparse

from jnnk.graphs._graph import NNKGraph


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
    adjacency = cast(Any, graph.to_scipy())  # SciPy has no annotations
    if keep == "larger_weight":
        return adjacency.maximum(adjacency.T).tocsr()
    if keep != "smaller_error":
        raise ValueError(f"keep: expected 'smaller_error' or 'larger_weight', got {keep!r}")
    errors = np.asarray(graph.errors)
    edges = adjacency.tocoo()
    own = errors[edges.row] <= errors[edges.col]
    trusted = cast(
        Any,
        scipy.sparse.csr_array(
            (edges.data[own], (edges.row[own], edges.col[own])), shape=adjacency.shape
        ),
    )
    return trusted.maximum(trusted.T).tocsr()
