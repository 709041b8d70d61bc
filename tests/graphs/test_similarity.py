"""Similarities: values, bandwidths, limits, and that they are static arguments."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from jnnk import graphs
from jnnk.graphs import RadialSimilarity, nnk_graph
from jnnk.parallel import parse_mesh


@dataclasses.dataclass(frozen=True)
class Laplacian(RadialSimilarity):
    """``exp(-d / length)``."""

    length: float

    def of_squared_distances(self, squared_distances, widths):
        return jnp.exp(-jnp.sqrt(squared_distances) / (self.length * widths))


@dataclasses.dataclass(frozen=True)
class RelativeLaplacian(Laplacian):
    """The lengths are in those of the largest distance in the graph."""

    needs_all_distances = True

    def resolved(self, squared_distances, valid, unit):
        largest = jnp.sqrt(jnp.max(jnp.where(valid, squared_distances, 0)))
        return Laplacian(self.length * largest * unit)


@dataclasses.dataclass(frozen=True)
class RationalQuadratic:
    """``1 / (1 + d^2 / length^2)``, by a class that inherits nothing."""

    length: float
    needs_all_distances = False

    def embed(self, points):
        return points

    def resolved(self, squared_distances, valid, unit):
        return self

    def widths(self, squared_distances, valid, unit):
        return jnp.broadcast_to(self.length / unit, squared_distances.shape[:1])

    def of_squared_distances(self, squared_distances, widths):
        return 1 / (1 + squared_distances / widths**2)


_MEDIAN = graphs.gaussian("median")


def _oracle(points, num_neighbors, similar):
    """Weights (N, N) of a function of distances, by SciPy in float64."""
    distances = np.linalg.norm(points[:, None].astype(np.float64) - points, axis=2)
    weights = np.zeros(distances.shape)
    for query, row in enumerate(distances):
        near = np.argsort(np.where(np.arange(len(points)) == query, np.inf, row))[:num_neighbors]
        lower = np.linalg.cholesky(similar(distances[np.ix_(near, near)]))
        cross = similar(row[near])
        weights[query, near] = scipy.optimize.nnls(lower.T, np.linalg.solve(lower, cross))[0]
    return weights


def _similarities(points, chosen):
    """The weights of the nearest candidate alone: with K = 1 the weight is the similarity."""
    return np.asarray(nnk_graph(points, num_neighbors=1, similarity=chosen).weights)[:, 0]


@pytest.mark.thorough
def test_a_single_candidate_gets_its_similarity():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(40, 3)).astype(np.float32)
    distances = np.linalg.norm(points[:, None].astype(np.float64) - points, axis=2)
    np.fill_diagonal(distances, np.inf)
    nearest = distances.min(axis=1)
    fixed = _similarities(points, graphs.gaussian(0.7))
    np.testing.assert_allclose(fixed, np.exp(-0.5 * (nearest / 0.7) ** 2), atol=2e-6)
    relative = _similarities(points, graphs.gaussian(factor=2.0))
    np.testing.assert_allclose(relative, np.exp(-2.0), rtol=1e-5)
    median = _similarities(points, graphs.gaussian("median", factor=1.0))
    expected = np.exp(-0.5 * (nearest / np.median(nearest)) ** 2)
    np.testing.assert_allclose(median, expected, atol=2e-6)
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -1)
    np.testing.assert_allclose(
        _similarities(points, graphs.cosine()), 0.5 + 0.5 * cosines.max(axis=1), atol=2e-6
    )


def test_zero_vectors_are_like_each_other_and_half_like_the_rest():
    points = jnp.array([[0.0, 0.0], [0.0, 0.0], [3.0, 0.0], [0.0, 2.0]])
    embedded = graphs.cosine().embed(points)
    squared = jnp.sum((embedded[:, None] - embedded) ** 2, axis=2)
    similar = graphs.cosine().of_squared_distances(squared, jnp.ones(()))
    expected = [[1, 1, 0.5, 0.5], [1, 1, 0.5, 0.5], [0.5, 0.5, 1, 0.5], [0.5, 0.5, 0.5, 1]]
    np.testing.assert_allclose(similar, expected, atol=1e-6)


def test_bandwidth_zero_is_the_limit():
    squared = jnp.array([0.0, 1e-30, 1.0])
    for width in (0.0, 1e-20):  # the square of the second is below the range, its inverse above
        value = graphs.gaussian().of_squared_distances(squared, jnp.float32(width))
        assert value.tolist() == [1.0, 0.0, 0.0]


def test_the_callers_own_function():
    rng = np.random.default_rng(1)
    points = rng.normal(size=(30, 3)).astype(np.float32)

    def own(x, y):
        return jnp.exp(-0.5 * jnp.sum((x - y) ** 2))

    ours = nnk_graph(points, num_neighbors=6, similarity=graphs.gaussian(1.0))
    theirs = nnk_graph(points, num_neighbors=6, similarity=own)
    np.testing.assert_allclose(ours.weights, theirs.weights, atol=2e-5)
    np.testing.assert_allclose(ours.errors, theirs.errors, atol=1e-5)


def test_a_radial_similarity_of_the_callers():
    values = np.random.default_rng(2).normal(size=(30, 1, 3, 2)).astype(np.float32)
    options = {"num_neighbors": 6, "similarity": Laplacian(0.5)}
    channels = graphs.channelwise_nnk_graph(values, **options)
    sharded = graphs.sharded_nnk_graph(values, mesh=parse_mesh("data=1"), **options)
    for channel in range(2):
        points = values[:, 0, :, channel]
        expected = _oracle(points, 6, lambda d: np.exp(-d / 0.5))
        one = nnk_graph(points, **options)
        for graph in (one, channels.channel(channel), sharded.channel(channel)):
            np.testing.assert_allclose(graph.to_scipy().toarray(), expected, atol=1e-5)
            assert graph.converged.all()
    # Distances have units: their squares are beyond float32 here.
    far = nnk_graph(2.0**70 * points, num_neighbors=6, similarity=Laplacian(0.5 * 2.0**70))
    np.testing.assert_allclose(far.weights, one.weights, atol=1e-6)


@pytest.mark.thorough
def test_a_radial_similarity_that_inherits_nothing():
    points = np.random.default_rng(3).normal(size=(30, 3)).astype(np.float32)
    similarity = RationalQuadratic(2.0)
    assert isinstance(similarity, RadialSimilarity)
    graph = nnk_graph(points, num_neighbors=6, similarity=similarity)
    expected = _oracle(points, 6, lambda d: 1 / (1 + d**2 / 4))
    np.testing.assert_allclose(graph.to_scipy().toarray(), expected, atol=2e-5)

    def total_error(points):
        return nnk_graph(points, num_neighbors=6, similarity=similarity).errors.sum()

    assert np.isfinite(jax.grad(total_error)(jnp.asarray(points))).all()


@pytest.mark.thorough
def test_a_similarity_may_need_all_distances():
    points = np.random.default_rng(4).normal(size=(30, 3)).astype(np.float32)
    graph = nnk_graph(points, num_neighbors=6, similarity=RelativeLaplacian(0.5))
    largest = float(graph.distances.max())
    fixed = nnk_graph(points, num_neighbors=6, similarity=Laplacian(0.5 * largest))
    np.testing.assert_allclose(graph.weights, fixed.weights, atol=1e-6)


def test_the_median_of_no_points():
    graph = nnk_graph(np.zeros((0, 2), np.float32), num_neighbors=3, similarity=_MEDIAN)
    assert graph.weights.shape == (0, 3)


@pytest.mark.parametrize("wrong", ["gaussian", None, 1.0, graphs.Cosine])
def test_what_is_no_similarity_is_named(wrong):
    points = np.ones((4, 1, 1), np.float32)
    for build in (graphs.channelwise_nnk_graph, graphs.sharded_nnk_graph):
        mesh = {"mesh": parse_mesh("data=1")} if build is graphs.sharded_nnk_graph else {}
        with pytest.raises(ValueError, match="similarity: expected"):
            build(points, num_neighbors=2, similarity=wrong, **mesh)


def test_equal_similarities_are_one_static_argument():
    assert hash(graphs.gaussian()) == hash(graphs.gaussian(factor=3))
    assert graphs.cosine() == graphs.cosine() != graphs.gaussian()
    counted = []

    def trace(x, chosen):
        counted.append(chosen)
        return chosen.embed(x)

    jitted = jax.jit(trace, static_argnums=1)
    jitted(jnp.ones((2, 2)), graphs.gaussian(1))
    jitted(jnp.ones((2, 2)), graphs.gaussian(1.0))
    assert len(counted) == 1


@pytest.mark.parametrize("name", ["bandwidth", "factor"])
@pytest.mark.parametrize(
    "value", [-1.0, 0.0, 0, np.nan, np.inf, "mean", True, np.True_, None, [1.0], jnp.float32(-1)]
)
def test_bad_options_are_named(name, value):
    with pytest.raises(ValueError, match=name):
        graphs.gaussian(**{name: value})
    with pytest.raises(ValueError, match=name):
        graphs.Gaussian(**{"bandwidth": 1.0, "factor": 3.0, name: value})


def test_numbers_of_any_library_are_options():
    for number in (2, 2.0, np.float32(2), np.array(2.0), jnp.float32(2)):
        assert graphs.gaussian(number, factor=number) == graphs.gaussian(2.0, factor=2.0)
        assert graphs.Gaussian(number, number) == graphs.gaussian(2.0, factor=2.0)
