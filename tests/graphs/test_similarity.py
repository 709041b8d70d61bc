"""Similarities: values, bandwidths, limits, and that they are static arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnnk import graphs
from jnnk.graphs import nnk_graph


def _similarities(points, chosen):
    """The weights of the nearest candidate alone: with K = 1 the weight is the similarity."""
    return np.asarray(nnk_graph(points, num_neighbors=1, similarity=chosen).weights)[:, 0]


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
