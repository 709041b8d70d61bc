"""Baselines against float64 formulas and on channels whose answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from jnnk.graphs import NNKGraph, cosine, gaussian, nnk_graph
from jnnk.measures import channel_cka, channel_overlap, knn_graph, label_overlap, linear_cka


def hsic(k, l):
    """HSIC_1 of Song et al. (2012), equation (5)."""
    n = len(k)
    k, l = (z - np.diag(np.diag(z)) for z in (k, l))
    ones = np.ones(n)
    of_sums = (ones @ k @ ones) * (ones @ l @ ones) / ((n - 1) * (n - 2))
    return (np.trace(k @ l) + of_sums - 2 / (n - 2) * ones @ k @ l @ ones) / (n * (n - 3))


def expected_cka(x, y):
    x, y = (z.reshape(len(z), -1).astype(np.float64) for z in (x, y))
    k, l = x @ x.T, y @ y.T
    return hsic(k, l) / np.sqrt(hsic(k, k) * hsic(l, l))


@pytest.fixture(scope="module")
def points():
    return np.random.default_rng(0).normal(size=(80, 3, 3, 4)).astype(np.float32)


def test_linear_cka(points):
    x, y = points[..., :3], points[..., 1:] + 5
    assert linear_cka(x, y) == pytest.approx(expected_cka(x, y), rel=1e-4)
    flat = points.reshape(80, -1)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(36, 36)))[0]
    turned = (1e4 * flat @ rotation + 3).astype(np.float32)
    assert linear_cka(flat, turned) == pytest.approx(1, abs=1e-4)
    assert linear_cka(1e-12 * flat, 1e12 * flat) == pytest.approx(1, abs=1e-5)
    assert np.isnan(linear_cka(flat, np.full((80, 5), 0.1, np.float32)))
    with pytest.raises(ValueError, match="in both, got 80 and 79"):
        linear_cka(flat, flat[1:])


@pytest.mark.parametrize("shape", [(30, 4), (30, 300)])  # by covariances, by Gram matrices
def test_linear_cka_of_either_shape(shape):
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape).astype(np.float32) + 2
    y = (x[:, :3] @ rng.normal(size=(3, shape[1])) + rng.normal(size=shape)).astype(np.float32)
    assert linear_cka(x, y) == pytest.approx(expected_cka(x, y), rel=1e-4)
    assert linear_cka(x, x) == pytest.approx(1, abs=1e-5)
    x[1:] = 3  # what varies in one image only has no unbiased HSIC
    assert np.isnan(linear_cka(x, y)) and np.isnan(linear_cka(x, x))


@pytest.mark.parametrize("images", [1, 2, 3])
def test_linear_cka_needs_four_images(images):
    points = np.random.default_rng(0).normal(size=(4, 3, 2)).astype(np.float32)
    assert np.isnan(linear_cka(points[:images], points[:images]))
    assert np.isnan(channel_cka(points[:images])).all()
    assert np.isfinite(channel_cka(points)).all()


@pytest.mark.parametrize("width", [4, 256, 1024])
def test_independent_channels_have_no_cka(width):
    """By the biased ratio 0.03, 0.67 and 0.89."""
    channels = np.random.default_rng(0).normal(size=(128, width, 8)).astype(np.float32)
    values = np.asarray(channel_cka(channels))[np.triu_indices(8, 1)]
    # One value is about normal with variance 2 / N^2 for any width.
    assert abs(values.mean()) < 4 * np.sqrt(2) / 128 / np.sqrt(len(values))
    assert values.min() < 0 and np.abs(values).max() < 0.06


def test_channel_cka(points):
    layer = np.concatenate([points, 2 * points[..., :1] + 1, np.full_like(points[..., :1], 7)], -1)
    result = np.asarray(channel_cka(jnp.asarray(layer)))
    expected = [[expected_cka(layer[..., c], layer[..., d]) for d in range(5)] for c in range(5)]
    np.testing.assert_allclose(result[:5, :5], expected, rtol=1e-4)
    assert result[0, 4] == pytest.approx(1, abs=1e-5)
    assert np.isnan(result[5]).all() and np.isnan(result[:, 5]).all()
    order = np.random.default_rng(0).permutation(6)
    np.testing.assert_allclose(
        channel_cka(jnp.asarray(layer[..., order])), result[order][:, order], rtol=1e-5
    )


def plain_graph(points, num_neighbors=5):
    """Euclidean neighbours with weights that make some of them no NNK neighbours."""
    squared = cdist(points, points, "sqeuclidean") + np.diag(np.full(len(points), np.inf))
    indices = np.argsort(squared, 1)[:, :num_neighbors]
    squared = np.take_along_axis(squared, indices, 1).astype(np.float32)
    weights = np.cos(indices).astype(np.float32).clip(0)
    zeros = jnp.zeros(len(points))
    return NNKGraph(
        jnp.asarray(indices, jnp.int32),
        jnp.asarray(weights),
        zeros,
        zeros,
        zeros == 0,
        jnp.asarray(np.sqrt(squared)),
        zeros > 0,
    )


def test_knn_graph(points):
    graph = plain_graph(points.reshape(80, -1))
    graph = graph._replace(  # one candidate that does not exist
        indices=graph.indices.at[3, -1].set(-1),
        distances=graph.distances.at[3, -1].set(jnp.inf),
    )
    exists = np.asarray(graph.indices) >= 0
    squared = np.where(exists, graph.squared_distances, 0).astype(np.float64)
    np.testing.assert_array_equal(knn_graph(graph).weights, exists)
    for similarity, width in (
        (gaussian(), np.sqrt(squared.max(1, keepdims=True)) / 3),
        (gaussian("median", factor=2.0), np.median(np.sqrt(squared[exists])) / 2),
        (gaussian(3.0), 3.0),
    ):
        expected = np.where(exists, np.exp(-squared / (2 * width**2)), 0)
        weighted = knn_graph(graph, similarity=similarity)
        np.testing.assert_allclose(weighted.weights, expected, rtol=1e-4)
    channels = jax.tree.map(lambda x: jnp.stack([x, x]), graph)
    stacked = knn_graph(channels, similarity=gaussian(3.0)).weights
    np.testing.assert_allclose(stacked[1], expected, rtol=1e-4)


def test_knn_graph_of_cosines(points):
    """From the engine: the distances it states are those of unit vectors."""
    flat = points.reshape(80, -1)
    graph = nnk_graph(jnp.asarray(flat), num_neighbors=5, similarity=cosine())
    knn = knn_graph(graph, similarity=cosine())
    distances = cdist(flat, flat, "cosine") + np.diag(np.full(80, np.inf))
    np.testing.assert_array_equal(np.sort(knn.indices), np.sort(np.argsort(distances, 1)[:, :5]))
    own = np.take_along_axis(distances, np.asarray(knn.indices), 1)
    np.testing.assert_allclose(knn.weights, 1 - own / 2, rtol=1e-4)


def test_knn_overlap_of_layers(points):
    """Stacked graphs of layers are compared like channels."""
    layers = [points.reshape(80, -1), 3 * points.reshape(80, -1), points[:, 0].reshape(80, -1)]
    graphs = [plain_graph(layer) for layer in layers]
    overlap = channel_overlap(knn_graph(jax.tree.map(lambda *x: jnp.stack(x), *graphs)))
    assert overlap[0, 1] == pytest.approx(1)
    sets = [[set(ids) for ids in np.asarray(graph.indices).tolist()] for graph in graphs]
    expected = np.mean([len(a & b) / len(a | b) for a, b in zip(sets[0], sets[2], strict=True)])
    assert overlap[0, 2] == pytest.approx(expected, rel=1e-5)


def test_label_overlap(points):
    graph = plain_graph(points.reshape(80, -1))
    labels = jnp.asarray(np.random.default_rng(2).integers(0, 3, 80), jnp.int32)
    for used in (graph, knn_graph(graph)):
        shares = [
            np.mean(np.asarray(labels)[np.asarray(ids)[np.asarray(w) > 0]] == int(label))
            for ids, w, label in zip(used.indices, used.weights, labels, strict=True)
            if (np.asarray(w) > 0).any()
        ]
        assert label_overlap(used, labels) == pytest.approx(np.mean(shares), rel=1e-5)
    nothing = graph._replace(weights=jnp.zeros_like(graph.weights))
    assert np.isnan(label_overlap(nothing, labels))


def test_vmap_and_grad(points):
    x = jnp.asarray(points)
    both = jax.vmap(channel_cka)(jnp.stack([x[::-1], x]))
    np.testing.assert_allclose(both[1], channel_cka(x), rtol=1e-4)
    direction = jnp.cos(jnp.arange(x[..., :2].size, dtype=jnp.float32)).reshape(80, 3, 3, 2)

    def along(step):
        return linear_cka(x[..., :2] + step * direction, x[..., 1:])

    difference = (along(1e-2) - along(-1e-2)) / 2e-2
    assert jax.grad(along)(0.0) == pytest.approx(float(difference), rel=2e-2)
