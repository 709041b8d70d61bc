"""NNK graphs: against an oracle built by hand, transforms, robustness, adjacency."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from jnnk.graphs import cosine, gaussian, nnk_graph, symmetric_adjacency

_N, _K = 60, 8


def _points(number=_N, dim=4, seed=0):
    return np.random.default_rng(seed).normal(size=(number, dim)).astype(np.float32)


def _oracle(points, num_neighbors):
    """Weights (N, N) and errors (N,) with the authors' bandwidth, float64."""
    points = np.asarray(points, np.float64)
    square = ((points[:, None] - points) ** 2).sum(-1)
    weights, errors = np.zeros(square.shape), np.zeros(len(points))
    for i in range(len(points)):
        near = np.argsort(np.where(np.arange(len(points)) == i, np.inf, square[i]))[:num_neighbors]
        width = np.sqrt(square[i, near[-1]]) / 3
        gram = np.exp(-square[np.ix_(near, near)] / (2 * width**2))
        cross = np.exp(-square[i, near] / (2 * width**2))
        lower = np.linalg.cholesky(gram)
        theta = scipy.optimize.nnls(lower.T, np.linalg.solve(lower, cross))[0]
        weights[i, near] = theta
        errors[i] = 1 - 2 * theta @ cross + theta @ gram @ theta
    return weights, errors


def test_agrees_with_an_oracle():
    points = _points()
    graph = nnk_graph(points, num_neighbors=_K)  # jitted as it is
    weights, errors = _oracle(points, _K)
    np.testing.assert_allclose(graph.to_scipy().toarray(), weights, atol=1e-5)
    np.testing.assert_allclose(graph.errors, errors, atol=1e-5)
    assert graph.indices.shape == graph.weights.shape == (_N, _K)
    assert graph.indices.dtype == jnp.int32 and graph.converged.all()
    for scale in (1e-20, 1e20):
        scaled = nnk_graph(points * np.float32(scale), num_neighbors=_K)
        np.testing.assert_array_equal(scaled.indices, graph.indices)
        np.testing.assert_allclose(scaled.weights, graph.weights, atol=2e-5)


def test_queries_against_points():
    points, queries = _points(), _points(9, seed=1)
    both = np.concatenate([points, queries])
    graph = nnk_graph(points, queries=queries, num_neighbors=_K)
    own = nnk_graph(points, num_neighbors=_K)
    again = nnk_graph(points, queries=points, exclude=jnp.arange(_N), num_neighbors=_K)
    np.testing.assert_array_equal(own.indices, again.indices)
    square = ((queries[:, None] - both[:_N]) ** 2).sum(-1)
    np.testing.assert_array_equal(graph.indices, np.argsort(square, axis=1)[:, :_K])


def test_ambiguous_where_candidates_are_alike_away_from_the_query():
    points = _points()
    twice = np.concatenate([points, points[:4]])
    plain, graph = (nnk_graph(x, num_neighbors=_K) for x in (points, twice))
    assert plain.ambiguous.shape == (_N,) and plain.ambiguous.mean() < 0.1
    alike = np.asarray(graph.indices) % _N < 4
    held = np.sum(alike & np.asarray(graph.weights > 0), axis=1) > 0
    copied = np.arange(_N + 4) % _N < 4  # their own copies coincide with them
    assert graph.converged.all() and held.sum() > 4
    assert graph.ambiguous[held & ~copied].all()


def test_vmap_and_cosine():
    points = jnp.stack([jnp.asarray(_points()), 2 * jnp.asarray(_points())])
    graph = jax.vmap(lambda p: nnk_graph(p, num_neighbors=_K, similarity=cosine()))(points)
    np.testing.assert_array_equal(graph.indices[0], graph.indices[1])
    np.testing.assert_allclose(graph.weights[0], graph.weights[1], atol=1e-5)
    assert graph.converged.all()


def test_derivatives_reach_the_points():
    rng = np.random.default_rng(2)
    points, direction = rng.normal(size=(20, 3)), rng.normal(size=(20, 3))

    @jax.jit
    def graph_at(step):
        return nnk_graph(points + step * direction, num_neighbors=4)

    def value(step):
        graph = graph_at(step)
        return jnp.sum(graph.errors) + jnp.sum(jnp.sin(graph.weights))

    with jax.enable_x64(True):
        zero, step = jnp.zeros(()), 1e-6
        forward = jax.jvp(value, (zero,), (jnp.ones(()),))[1]
        reverse = jax.grad(value)(zero)
        plus, minus = zero + step, zero - step
        difference = (value(plus) - value(minus)) / (2 * step)
        above, below = graph_at(plus), graph_at(minus)
    np.testing.assert_array_equal(np.asarray(above.weights) > 0, np.asarray(below.weights) > 0)
    np.testing.assert_allclose(forward, difference, atol=1e-6)
    np.testing.assert_allclose(reverse, forward, atol=1e-9)


@pytest.mark.parametrize("similarity", [gaussian(), gaussian(1e-30), cosine()])
def test_awkward_points_have_their_documented_outcome(similarity):
    points = _points()
    points[1] = points[0]  # a duplicate
    points[2], points[3, 0] = np.nan, np.inf
    points[4:8] = 0
    graph = nnk_graph(points, num_neighbors=_K, similarity=similarity)
    for field in graph[:3]:
        assert not np.isnan(field).any()
    assert (np.asarray(graph.indices)[2:4] == -1).all()
    assert (graph.weights[2:4] == 0).all() and (graph.errors[2:4] == 1).all()
    assert not graph.converged[2:4].any() and graph.converged.sum() == _N - 2
    assert not np.isin(graph.indices, [2, 3]).any()
    # The duplicate explains its query entirely.
    np.testing.assert_allclose(graph.errors[:2], 0, atol=2e-6)


def test_a_similarity_that_fails_for_a_query_says_so():
    def similarity(x, y):
        return jnp.exp(-jnp.sum((x - y) ** 2)) / jnp.where((x[0] > 9) | (y[0] > 9), jnp.nan, 1)

    points = _points()
    points[3, 0] = 10

    graph = nnk_graph(points, num_neighbors=_K, similarity=similarity)
    failed = (np.asarray(graph.indices) == 3).any(1) | (np.arange(_N) == 3)
    assert not failed.all()
    np.testing.assert_array_equal(graph.converged, ~failed)
    np.testing.assert_array_equal(np.isinf(graph.kkt_residual), failed)
    assert (graph.weights[failed] == 0).all() and (graph.errors[failed] == 1).all()
    assert ((np.asarray(graph.weights) > 0).any(1) == ~failed).all()


@pytest.mark.parametrize("number", [1, 2, 5])
def test_fewer_points_than_candidates(number):
    graph = nnk_graph(_points(number), num_neighbors=_K)
    assert graph.indices.shape == (number, _K)
    assert (np.asarray(graph.indices)[:, number - 1 :] == -1).all()
    assert (np.asarray(graph.weights)[:, number - 1 :] == 0).all()
    assert (np.asarray(graph.weights)[:, : number - 1].sum(1) > 0).all() or number == 1
    assert graph.converged.all()


def test_points_that_all_coincide_have_no_edges():
    for similarity in (gaussian(), cosine(), gaussian(1.0)):
        graph = nnk_graph(
            np.full((_N, 4), 0.3, np.float32), num_neighbors=_K, similarity=similarity
        )
        assert (graph.weights == 0).all() and (graph.errors == 1).all() and graph.converged.all()


def test_symmetric_adjacency_keeps_the_trusted_direction():
    graph = nnk_graph(_points(), num_neighbors=_K)
    directed, errors = graph.to_scipy().toarray(), np.asarray(graph.errors)
    trusted = symmetric_adjacency(graph).toarray()
    larger = symmetric_adjacency(graph, keep="larger_weight").toarray()
    np.testing.assert_array_equal(larger, np.maximum(directed, directed.T))
    assert symmetric_adjacency(graph).indices.dtype == np.int32
    assert symmetric_adjacency(graph, keep="larger_weight").indices.dtype == np.int32
    better = np.where(errors[:, None] <= errors[None], directed, directed.T)
    np.testing.assert_array_equal(trusted, better)
    with pytest.raises(ValueError, match="keep"):
        symmetric_adjacency(graph, keep="both")


def test_misuse_raises():
    points = jnp.ones((4, 2))
    with pytest.raises(ValueError, match="points"):
        nnk_graph(points[0], num_neighbors=1)
    with pytest.raises(ValueError, match="num_neighbors"):
        nnk_graph(points, num_neighbors=0)
    with pytest.raises(ValueError, match="exclude"):
        nnk_graph(points, num_neighbors=1, exclude=jnp.arange(4))
    with pytest.raises(ValueError, match="queries"):
        nnk_graph(points, num_neighbors=1, queries=jnp.ones((4, 3)))


@pytest.mark.thorough  # to the bit only as users compile
@pytest.mark.user_compile
def test_more_neighbors_than_points_solve_the_same_problems():
    points = _points(20)
    most = nnk_graph(points, num_neighbors=19)
    for asked in (20, 60):
        graph = nnk_graph(points, num_neighbors=asked)
        assert graph.indices.shape == graph.weights.shape == (20, asked)
        for field, expected in zip(graph, most, strict=True):
            kept = field[:, :19] if field.ndim == 2 else field
            np.testing.assert_array_equal(kept, expected)
        assert (graph.indices[:, 19:] == -1).all() and (graph.weights[:, 19:] == 0).all()
        assert jnp.isinf(graph.squared_distances[:, 19:]).all()


@pytest.mark.parametrize("sizes", [(0, 5, 3), (4, 0, 3), (0, 0, 3), (4, 5, 0)])
def test_empty_inputs(sizes):
    num_queries, num_points, dim = sizes
    points, queries = jnp.ones((num_points, dim)), jnp.ones((num_queries, dim))
    graph = nnk_graph(points, queries=queries, num_neighbors=2)
    assert graph.indices.shape == graph.weights.shape == (num_queries, 2)
    assert graph.errors.shape == graph.converged.shape == (num_queries,)
    if num_points == 0:
        assert (graph.indices == -1).all() and (graph.weights == 0).all()
        assert (graph.errors == 1).all() and graph.converged.all()
    own = nnk_graph(points, num_neighbors=2)
    assert own.indices.shape == (num_points, 2)


def test_clusters_far_apart_have_their_own_geometry():
    """A graph of narrow clusters is that of each cluster alone, and of the cluster widened."""
    rng = np.random.default_rng(0)
    shape = rng.integers(-999, 1000, (_N, 3)).astype(np.float32)
    centers = np.array([[0, 0, 0], [1, -1, 0.5], [0, 1, 1]], np.float32)
    exact = 2.0**-20  # all sums with a center are exact
    points = np.concatenate([center + np.float32(exact) * shape / 64 for center in centers])
    graph = nnk_graph(points, num_neighbors=_K)
    for number, center in enumerate(centers):
        alone = nnk_graph(points[number * _N :][:_N] - center, num_neighbors=_K)
        rows = slice(number * _N, (number + 1) * _N)
        np.testing.assert_array_equal(graph.indices[rows] - number * _N, alone.indices)
        np.testing.assert_allclose(graph.weights[rows], alone.weights, atol=2e-5)


def test_a_point_far_from_all_others_leaves_them_their_weights():
    line = np.array([[0.0], [1.0], [2.0], [4.0], [1e20]], np.float32)
    graph, without = (nnk_graph(x, num_neighbors=3) for x in (line, line[:4]))
    np.testing.assert_array_equal(graph.indices[:4], without.indices)
    np.testing.assert_allclose(graph.weights[:4], without.weights, atol=1e-6)


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_neighbors": 2.0},
        {"num_neighbors": True},
        {"num_neighbors": 2, "queries": [[0.0, 1.0]]},
        {"num_neighbors": 2, "queries": np.ones((1, 2)), "exclude": [0]},
        {"num_neighbors": 2, "block_size": None},
    ],
)
def test_wrong_kinds_of_arguments_are_named(arguments):
    with pytest.raises(ValueError, match=list(arguments)[-1]):
        nnk_graph(jnp.ones((4, 2)), **arguments)
    for bad in ([[0.0, 1.0]], np.ones((4, 2), complex)):
        with pytest.raises(ValueError, match="points: expected"):
            nnk_graph(bad, num_neighbors=1)


def test_a_graph_is_printed_as_one_line():
    points = jnp.array([[0.0], [1.0], [2.0], [4.0]])
    graph = nnk_graph(points, num_neighbors=3)
    said = "4 queries, 3 candidates each; mean degree 1.50, 100% converged"
    assert repr(graph) == str(graph) == f"NNKGraph: {said}"
    assert repr(jax.device_get(graph)) == repr(graph)
    channels = jax.tree.map(lambda field: jnp.stack([field, field]), graph)
    lost = channels._replace(converged=channels.converged.at[0, 0].set(False))
    assert "87.5% converged" in repr(lost)
    assert repr(channels) == f"NNKGraph: 2 channels, {said}"
    assert repr(channels.channel(1)) == repr(graph)


def test_a_graph_without_values_prints_its_sizes():
    points, said = jnp.ones((4, 1)), []

    def traced(points):
        graph = nnk_graph(points, num_neighbors=3)
        said.append(repr(graph))
        return graph

    shapes = jax.eval_shape(traced, points)
    assert said == [repr(shapes)] == ["NNKGraph: 4 queries, 3 candidates each"]
    zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
    for empty in (jax.tree.map(lambda x: x[:0], zeros), jax.tree.map(lambda x: x[None][:0], zeros)):
        assert repr(empty).endswith("candidates each")
    zeros.weights.delete()
    assert repr(zeros) == said[0]
    assert repr(jax.tree.map(lambda x: 0, zeros)) == "NNKGraph(0, 0, 0, 0, 0, 0, 0, 0)"
