"""Dimension estimates against float64 formulas and on manifolds of known dimension."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.spatial import cKDTree
from scipy.special import betaln

from jnnk.graphs import NNKGraph
from jnnk.measures import gride, intrinsic_dimension, maximum_likelihood_dimension, two_nn


def distances_of(points, num_neighbors):
    return cKDTree(points).query(points, num_neighbors + 1)[0][:, 1:]


def manifold(dimension, seed, num_points=2000):
    """Uniform in a cube of that dimension, bent into 10 dimensions by an isometry per axis."""
    rng = np.random.default_rng(seed)
    flat = rng.random((num_points, dimension))
    circles = np.concatenate([np.cos(flat), np.sin(flat)], axis=1)  # arc length is kept
    rotation = np.linalg.qr(rng.normal(size=(20, 20)))[0]
    return circles @ rotation[: 2 * dimension]


def expected_two_nn(distances, discard=0.1):
    ratio = np.sort(distances[:, 1] / distances[:, 0])
    kept = int(len(ratio) * (1 - discard))
    x = np.log(ratio[:kept])
    y = -np.log(1 - np.arange(1, kept + 1) / len(ratio))
    return (x @ y) / (x @ x)


def expected_mle(distances):
    logs = np.log(distances[:, -1:] / distances[:, :-1])
    local = (distances.shape[1] - 1) / logs.sum(1)
    return 1 / np.mean(1 / local)


@pytest.mark.parametrize("dimension", [1, 2, 5, 10])
def test_manifolds_of_known_dimension(dimension):
    distances = distances_of(manifold(dimension, dimension), 20)
    squared = jnp.asarray(distances**2, jnp.float32)
    assert two_nn(squared) == pytest.approx(expected_two_nn(distances), rel=1e-4)
    assert maximum_likelihood_dimension(squared) == pytest.approx(expected_mle(distances), rel=1e-4)
    # Finite samples of high dimension are seen through their boundary: both read too low.
    tolerance = {1: 0.05, 2: 0.1, 5: 0.15, 10: 0.3}[dimension]
    assert two_nn(squared) == pytest.approx(dimension, rel=tolerance)
    assert maximum_likelihood_dimension(squared) == pytest.approx(dimension, rel=tolerance)


def test_values_of_scikit_dimension():
    """Those of its release 0.5.0, after the correction of pull request 28, and of the one before.

    `skdim.id.TwoNN().fit(points)` and `skdim.id.MLE().fit(points, n_neighbors=3)`, ten points.
    """
    rng = np.random.default_rng(0)
    distances = distances_of(rng.random((10, 2)), 3)
    squared = jnp.asarray(distances**2, jnp.float32)
    assert two_nn(squared) == pytest.approx(1.9240811142665997, rel=1e-4)
    assert maximum_likelihood_dimension(squared) == pytest.approx(2.0636399187603964, rel=1e-4)
    ratio = np.sort(distances[:, 1] / distances[:, 0])[:9]
    off_by_one = -np.log(1 - np.arange(9) / 10) @ np.log(ratio) / (np.log(ratio) ** 2).sum()
    assert off_by_one == pytest.approx(1.3827965006911707)


def test_duplicates_and_missing_neighbours_are_left_out():
    distances = distances_of(np.random.default_rng(1).random((300, 3)), 8)
    squared = jnp.asarray(distances**2, jnp.float32)
    zeros = jnp.zeros((50, 8))
    alone = jnp.full((50, 8), jnp.inf)
    more = jnp.concatenate([zeros, squared, alone])
    for estimate in (two_nn, maximum_likelihood_dimension):
        assert estimate(more) == pytest.approx(float(estimate(squared)), rel=1e-5)
        assert np.isnan(estimate(zeros)) and np.isnan(estimate(alone))
    assert np.isnan(two_nn(jnp.ones((20, 2))))
    assert np.isinf(maximum_likelihood_dimension(jnp.ones((20, 3))))
    # One coinciding neighbour among several: K - 1 others are left.
    one = jnp.concatenate([jnp.zeros((300, 1)), squared], axis=1)
    assert maximum_likelihood_dimension(one) == pytest.approx(
        float(maximum_likelihood_dimension(squared)), rel=1e-5
    )


@pytest.mark.parametrize("scale", [1e-18, 1.0, 1e18])
def test_scale_does_not_matter(scale):
    squared = jnp.asarray(distances_of(manifold(2, 0, 500), 5) ** 2, jnp.float32)
    for estimate in (two_nn, maximum_likelihood_dimension):
        assert estimate(squared * scale) == pytest.approx(float(estimate(squared)), rel=1e-4)


def expected_gride(distances, nearer):
    """The maximum of the likelihood as the paper writes it, in float64."""
    ratio = distances[:, 2 * nearer - 1] / distances[:, nearer - 1]

    def surprise(d):
        powers = (nearer - 1) * np.log(np.expm1(d * np.log(ratio))) if nearer > 1 else 0
        density = np.log(d) + powers - ((2 * nearer - 1) * d + 1) * np.log(ratio)
        return -(density - betaln(nearer, nearer)).sum()

    found = minimize_scalar(surprise, bounds=(0.05, 80), method="bounded", options={"xatol": 1e-9})
    return found.x


@pytest.mark.parametrize("nearer", [1, 2, 4, 32])
@pytest.mark.parametrize("dimension", [1, 2, 10])
def test_gride_is_the_maximum_of_its_likelihood(dimension, nearer):
    distances = distances_of(manifold(dimension, dimension), 64)
    found = float(gride(jnp.asarray(distances, jnp.float32), nearer=nearer))
    assert found == pytest.approx(expected_gride(distances, nearer), rel=2e-4)
    tolerance = {1: 0.1, 2: 0.1, 10: 0.5}[dimension]  # the boundary again, the more the farther
    assert found == pytest.approx(dimension, rel=tolerance)


def test_gride_at_the_edges():
    rng = np.random.default_rng(3)
    distances = distances_of(rng.random((300, 3)), 8)
    for scale in (1e-30, 1e30):
        scaled = jnp.asarray(distances * scale, jnp.float32)
        assert gride(scaled) == pytest.approx(expected_gride(distances, 2), rel=2e-4)
    # Left out: queries that coincide with their n nearest, or have fewer than 2n.
    more = np.concatenate([distances, np.zeros((20, 8)), np.full((20, 8), np.inf)])
    more = jnp.asarray(more, jnp.float32)
    assert gride(more) == pytest.approx(expected_gride(distances, 2), rel=2e-4)
    assert np.isnan(gride(more[300:])) and np.isnan(gride(jnp.ones((9, 4))))
    stacked = jax.vmap(gride)(jnp.stack([more, 2 * more]))
    np.testing.assert_allclose(stacked, gride(jnp.stack([more, more])), rtol=1e-5)
    with jax.enable_x64(True):
        exact = jnp.asarray(distances)
        assert gride(exact, nearer=4) == pytest.approx(expected_gride(distances, 4), rel=1e-7)
        direction = jnp.asarray(rng.normal(size=distances.shape))
        step = 1e-6 * direction * exact
        change = gride(exact + step, nearer=4) - gride(exact - step, nearer=4)
        gradient = jax.grad(lambda d: gride(d, nearer=4))(exact)
        assert 2 * (gradient * step).sum() == pytest.approx(float(change), rel=1e-4)
    with pytest.raises(ValueError, match=r"distances: expected .* with K at least 10"):
        gride(more, nearer=5)
    with pytest.raises(ValueError, match="nearer: expected a whole number of at least 1, got 0"):
        gride(more, nearer=0)


def test_the_largest_ratio_is_left_out_however_little_is_discarded():
    distances = distances_of(np.random.default_rng(0).random((50, 2)), 2)
    squared = jnp.asarray(distances**2, jnp.float32)
    for discard in (1e-7, 1e-6, 1e-3):
        expected = expected_two_nn(distances, 1 / 50)
        assert two_nn(squared, discard=discard) == pytest.approx(expected, rel=1e-4)


def make_graph(seed=0):
    rng = np.random.default_rng(seed)
    weights = rng.random((3, 40, 6)).astype(np.float32) * (rng.random((3, 40, 6)) < 0.5)
    weights[1] = 0
    squared = np.sort(rng.random((3, 40, 6)).astype(np.float32), -1)
    zeros = jnp.zeros((3, 40))
    indices = jnp.zeros((3, 40, 6), jnp.int32)
    return NNKGraph(
        indices, jnp.asarray(weights), zeros, zeros, zeros == 0, jnp.asarray(squared), zeros > 0
    )


def test_degrees():
    graph = make_graph()
    degree = (np.asarray(graph.weights) > 0).sum(-1)
    result = intrinsic_dimension(graph)
    np.testing.assert_array_equal(result.degree, degree)
    np.testing.assert_allclose(result.mean_degree, degree.mean(1), rtol=1e-6)
    counts = [np.bincount(channel, minlength=7) for channel in degree]
    np.testing.assert_array_equal(result.degree_counts, counts)
    assert result.mean_degree[1] == 0 and result.degree_counts[1, 0] == 40
    for c in range(3):
        alone = graph.squared_distances[c]
        assert result.two_nn[c] == pytest.approx(float(two_nn(alone)), rel=1e-5)
        assert result.mle[c] == pytest.approx(float(maximum_likelihood_dimension(alone)), rel=1e-5)


def test_vmap_and_grad():
    graphs = jax.tree.map(lambda *x: jnp.stack(x), make_graph(0), make_graph(1))
    both = jax.vmap(intrinsic_dimension)(graphs)
    alone = intrinsic_dimension(make_graph(1))
    jax.tree.map(lambda b, a: np.testing.assert_allclose(b[1], a, rtol=1e-5), both, alone)

    squared = make_graph().squared_distances[0].at[0].set(0)
    direction = jnp.cos(jnp.arange(squared.size, dtype=jnp.float32)).reshape(squared.shape)
    for estimate in (two_nn, maximum_likelihood_dimension):
        gradient = jax.grad(estimate)(squared)
        assert np.isfinite(gradient).all()
        step = 1e-4 * direction * squared
        change = estimate(squared + step) - estimate(squared - step)
        assert (gradient * step).sum() * 2 == pytest.approx(float(change), rel=0.05)


def test_misuse_is_named():
    with pytest.raises(ValueError, match="K at least 2"):
        two_nn(jnp.ones((5, 1)))
    with pytest.raises(ValueError, match="discard"):
        two_nn(jnp.ones((5, 2)), discard=1.0)
