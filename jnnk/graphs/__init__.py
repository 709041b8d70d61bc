"""From points to neighbours, NNK weights and graphs; of every channel, and on many devices."""

from jnnk.graphs._adjacency import symmetric_adjacency
from jnnk.graphs._channels import channelwise_nnk_graph
from jnnk.graphs._graph import NNKGraph
from jnnk.graphs._interop import EdgeList, edge_list, to_networkx
from jnnk.graphs._neighbors import nearest_neighbors
from jnnk.graphs._nnk_graph import nnk_graph
from jnnk.graphs._qp.solve import QPSolution, solve_nnk
from jnnk.graphs._sharded import sharded_nnk_graph
from jnnk.graphs._similarity import (
    Bandwidth,
    Cosine,
    Gaussian,
    RadialSimilarity,
    Similarity,
    cosine,
    gaussian,
)

__all__ = [
    "Bandwidth",
    "Cosine",
    "EdgeList",
    "Gaussian",
    "NNKGraph",
    "QPSolution",
    "RadialSimilarity",
    "Similarity",
    "channelwise_nnk_graph",
    "cosine",
    "edge_list",
    "gaussian",
    "nearest_neighbors",
    "nnk_graph",
    "sharded_nnk_graph",
    "solve_nnk",
    "symmetric_adjacency",
    "to_networkx",
]
