"""NNK graphs as CSR, edge lists and networkx graphs: the same edges everywhere."""

import networkx
import numpy as np
import pytest

from jnnk.graphs import NNKGraph, edge_list, to_networkx

#: Four points by hand: 0 has two neighbours, 1 one, 2 none, 3 itself a neighbour of nobody.
INDICES = np.int32([[2, 1], [0, 2], [1, -1], [2, 0]])
WEIGHTS = np.float32([[0.25, 0.5], [0.75, 0], [0, 0], [0.125, 0.0625]])
EDGES = {(0, 2): 0.25, (0, 1): 0.5, (1, 0): 0.75, (3, 2): 0.125, (3, 0): 0.0625}


def graph_of(indices, weights):
    shape = weights.shape[:-1]
    errors = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) / 8
    distances = np.ones_like(weights)
    return NNKGraph(
        indices,
        weights,
        errors,
        np.zeros(shape),
        np.ones(shape, bool),
        distances,
        np.zeros(shape, bool),
    )


def test_scipy_holds_the_neighbours_alone():
    matrix = graph_of(INDICES, WEIGHTS).to_scipy()
    assert matrix.shape == (4, 4) and matrix.dtype == np.float32 and matrix.format == "csr"
    assert matrix.nnz == len(EDGES) and matrix.has_sorted_indices
    assert matrix.indices.dtype == matrix.indptr.dtype == np.int32
    assert {place: matrix[place] for place in EDGES} == EDGES
    wide = graph_of(INDICES, WEIGHTS).to_scipy(num_points=9)
    assert wide.shape == (4, 9) and (wide[:, :4] != matrix).nnz == 0
    with pytest.raises(ValueError, match="num_points is 2, but a neighbour has index 2"):
        graph_of(INDICES, WEIGHTS).to_scipy(num_points=2)


def test_a_channelwise_graph_is_taken_by_channel():
    both = graph_of(np.stack([INDICES, INDICES[::-1]]), np.stack([WEIGHTS, WEIGHTS[::-1]]))
    for convert in (NNKGraph.to_scipy, edge_list, to_networkx):
        with pytest.raises(ValueError, match=r"got \(2, 4, 2\); graph\.channel\(c\)"):
            convert(both)
    first, second = both.channel(0).to_scipy(), both.channel(1).to_scipy()
    np.testing.assert_array_equal(first.toarray(), graph_of(INDICES, WEIGHTS).to_scipy().toarray())
    np.testing.assert_array_equal(second.toarray(), first.toarray()[::-1])
    with pytest.raises(ValueError, match=r"channel-wise one .* got \(4, 2\)"):
        both.channel(0).channel(0)


def test_messages_flow_from_neighbour_to_query():
    edges = edge_list(graph_of(INDICES, WEIGHTS))
    assert edges.edge_index.dtype == np.int64 and edges.edge_index.shape == (2, len(EDGES))
    found = zip(*edges.edge_index, edges.edge_weight, strict=True)
    assert {(query, point): weight for point, query, weight in found} == EDGES
    # What a layer of PyTorch Geometric does with them is the product with the matrix.
    values = np.float32([1, 2, 4, 8])
    passed = np.zeros(4, np.float32)
    np.add.at(passed, edges.edge_index[1], edges.edge_weight * values[edges.edge_index[0]])
    np.testing.assert_allclose(passed, graph_of(INDICES, WEIGHTS).to_scipy() @ values)
    # Queries against more points than there are queries.
    far = edge_list(graph_of(np.int32([[70, -1]]), np.float32([[0.5, 0]])))
    assert far.edge_index.tolist() == [[70], [0]] and far.edge_weight.tolist() == [0.5]
    nothing = edge_list(graph_of(np.full((3, 2), -1, np.int32), np.zeros((3, 2), np.float32)))
    assert nothing.edge_index.shape == (2, 0)


def test_networkx_has_the_same_edges():
    network = to_networkx(graph_of(INDICES, WEIGHTS))
    assert isinstance(network, networkx.DiGraph) and list(network) == [0, 1, 2, 3]
    assert {(a, b): d["weight"] for a, b, d in network.edges(data=True)} == EDGES
    assert dict(network.nodes(data="error")) == {0: 0, 1: 0.125, 2: 0.25, 3: 0.375}
