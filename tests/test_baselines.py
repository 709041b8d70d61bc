"""Baselines against float64 formulas and on channels whose answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from jnnk.baselines import channel_cka, knn_graph, label_overlap, linear_cka
from jnnk.graph import nnk_graph
from jnnk.overlap import channel_overlap
from jnnk.similarity import cosine, gaussian


def expected_cka(x, y):
    """By Gram matrices, the other way round."""
    x, y = (z.reshape(len(z), -1).astype(np.float64) for z in (x, y))
    x, y = x - x.mean(0), y - y.mean(0)
    k, l = x @ x.T, y @ y.T
    return (k * l).sum() / np.sqrt((k * k).sum() * (l * l).sum())


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
    with pytest.raises(ValueError, match="same images; got 80 and 79"):
        linear_cka(flat, flat[1:])


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


@pytest.mark.parametrize("similarity", [None, gaussian(), cosine()], ids=["plain", "gauss", "cos"])
def test_knn_graph(points, similarity):
    flat = points.reshape(80, -1)
    graph = nnk_graph(jnp.asarray(flat), num_neighbors=5, similarity=similarity or gaussian())
    knn = knn_graph(graph, similarity=similarity)
    metric = "cosine" if similarity == cosine() else "sqeuclidean"
    distances = cdist(flat, flat, metric) + np.diag(np.full(80, np.inf))
    nearest = np.argsort(distances, 1)[:, :5]
    np.testing.assert_array_equal(np.sort(knn.indices), np.sort(nearest))
    own = np.take_along_axis(distances, np.asarray(knn.indices), 1)
    width = np.sqrt(own[:, -1:]) / 3
    weights = {None: np.ones_like(own), gaussian(): np.exp(-own / (2 * width**2))}
    expected = weights.get(similarity, 1 - own / 2)
    np.testing.assert_allclose(knn.weights, expected, rtol=1e-3)


def test_knn_overlap_of_layers(points):
    """Stacked graphs of layers are compared like channels."""
    layers = [points.reshape(80, -1), 3 * points.reshape(80, -1), points[:, 0].reshape(80, -1)]
    graphs = [nnk_graph(jnp.asarray(layer), num_neighbors=6) for layer in layers]
    stacked = knn_graph(jax.tree.map(lambda *x: jnp.stack(x), *graphs))
    overlap = channel_overlap(stacked)
    assert overlap[0, 1] == pytest.approx(1)
    sets = [[set(ids.tolist()) for ids in graph.indices] for graph in graphs]
    expected = np.mean([len(a & b) / len(a | b) for a, b in zip(sets[0], sets[2], strict=True)])
    assert overlap[0, 2] == pytest.approx(expected, rel=1e-5)


def test_label_overlap(points):
    graph = nnk_graph(jnp.asarray(points.reshape(80, -1)), num_neighbors=6)
    labels = jnp.asarray(np.random.default_rng(2).integers(0, 3, 80), jnp.int32)
    for used in (graph, knn_graph(graph)):
        shares = [
            np.mean(np.asarray(labels)[np.asarray(ids)[np.asarray(w) > 0]] == int(label))
            for ids, w, label in zip(used.indices, used.weights, labels, strict=True)
        ]
        assert label_overlap(used, labels) == pytest.approx(np.mean(shares), rel=1e-5)
    nothing = graph._replace(weights=jnp.zeros_like(graph.weights))
    assert np.isnan(label_overlap(nothing, labels))


def test_vmap_grad_and_exports(points):
    x = jnp.asarray(points)
    both = jax.vmap(channel_cka)(jnp.stack([x[::-1], x]))
    np.testing.assert_allclose(both[1], channel_cka(x), rtol=1e-4)
    direction = jnp.cos(jnp.arange(x[..., :2].size, dtype=jnp.float32)).reshape(80, 3, 3, 2)

    def along(step):
        return linear_cka(x[..., :2] + step * direction, x[..., 1:])

    difference = (along(1e-2) - along(-1e-2)) / 2e-2
    assert jax.grad(along)(0.0) == pytest.approx(float(difference), rel=2e-2)
    graph = nnk_graph(x.reshape(80, -1), num_neighbors=6)
    labels = jnp.zeros(80, jnp.int32)
    for platform in ("cpu", "cuda", "tpu"):
        for function, arguments in (
            (linear_cka, (x, x)),
            (channel_cka, (x,)),
            (label_overlap, (graph, labels)),
            (jax.jit(lambda graph: knn_graph(graph, similarity=gaussian())), (graph,)),
        ):
            jax.export.export(function, platforms=[platform])(*arguments)
