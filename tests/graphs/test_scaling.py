"""No scaling of the points changes a graph, and so none changes what is measured on it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import cKDTree

from jnnk.graphs import Gaussian, cosine, gaussian, nnk_graph
from jnnk.measures import (
    OVERLAP_KINDS,
    chance_overlap,
    channel_overlap,
    gride,
    intrinsic_dimension,
    knn_graph,
    label_interpolation,
    label_overlap,
    loo_error,
    redundancy,
)
from jnnk.penalties import overlap_penalty
from jnnk.sklearn import NNKClassifier, NNKTransformer

N, K = 60, 8
# About 1e-20 and 1e20, whose squares leave the range of float32; powers of two round nothing.
SCALES = (2.0**-67, 2.0**67)
POINTS = np.random.default_rng(0).normal(size=(2, N, 3))
POINTS[0, :12] = 0  # coincide
LABELS = (POINTS[1, :, 0] > 0).astype(int)


def own(scale):
    """A similarity of the user's own, in the units of the points."""
    return lambda x, y: jnp.exp(-jnp.abs(x - y).sum() / scale)


SIMILARITIES = {
    "kth neighbour": lambda scale: gaussian(),
    "median": lambda scale: gaussian("median"),
    "cosine": lambda scale: cosine(),
    "fixed": gaussian,
    "own": own,
}


def graph_of(name, scale):
    similarity = SIMILARITIES[name](scale)
    points = jnp.asarray(POINTS * scale, jnp.float32)
    graphs = [nnk_graph(x, num_neighbors=K, similarity=similarity) for x in points]
    return jax.tree.map(lambda *fields: jnp.stack(fields), *graphs), similarity


def measures(graph, similarity, *, unit):
    """Everything that is computed from the fields of a graph, by name."""
    dimension = intrinsic_dimension(graph)
    found = {
        "distances": graph.distances / unit,
        "weights": graph.weights,
        "degree": dimension.mean_degree,
        "two_nn": dimension.two_nn,
        "mle": dimension.mle,
        "gride": gride(graph.distances),
        "loo_error": loo_error(graph, LABELS, 2),
        "votes": label_interpolation(graph, LABELS, 2),
        "label_overlap": label_overlap(graph, LABELS),
        "redundancy": redundancy(graph),
        "knn": knn_graph(graph).weights,
        **{kind: channel_overlap(graph, kind=kind) for kind in OVERLAP_KINDS},
        "chance": chance_overlap(graph, num_candidates=N - 1),
    }
    if not callable(similarity):
        found["weighted knn"] = knn_graph(graph, similarity=similarity).weights
    return found


FIRST, *OTHERS = SIMILARITIES
OTHERS = [pytest.param(name, marks=pytest.mark.thorough) for name in OTHERS]


@pytest.mark.parametrize("name", [FIRST, *OTHERS])
def test_measures_of_graphs(name):
    expected = measures(*graph_of(name, 1.0), unit=1)
    assert all(np.isfinite(value).all() for value in expected.values())
    for scale in SCALES:
        unit = 1 if name == "cosine" else scale
        for measure, value in measures(*graph_of(name, scale), unit=unit).items():
            np.testing.assert_allclose(
                value, expected[measure], rtol=2e-4, atol=2e-4, err_msg=f"{measure} at {scale}"
            )


def test_distances_are_those_in_the_units_of_the_points():
    points = POINTS[1]
    distances = cKDTree(points).query(points, K + 1)[0][:, 1:]
    for scale in (1.0, *SCALES):
        graph = nnk_graph(jnp.asarray(points * scale, jnp.float32), num_neighbors=K)
        np.testing.assert_allclose(np.asarray(graph.distances) / scale, distances, rtol=1e-5)
        matrix = NNKTransformer(K, mode="distance").fit_transform(points * scale)
        rows, columns = matrix.nonzero()
        expected = np.linalg.norm(points[rows] - points[columns], axis=1)
        np.testing.assert_allclose(matrix.data / scale, expected, rtol=1e-5)
    graph = nnk_graph(jnp.asarray(points, jnp.float32), num_neighbors=K)
    np.testing.assert_allclose(graph.squared_distances, distances**2, rtol=1e-5)


def test_estimators_and_the_penalty():
    queries = POINTS[1] + 0.1
    expected = NNKClassifier(K).fit(POINTS[1], LABELS).predict_proba(queries)
    batch = np.moveaxis(POINTS, 0, -1)
    penalty = overlap_penalty(jnp.asarray(batch, jnp.float32), num_neighbors=K)
    for scale in SCALES:
        model = NNKClassifier(K).fit(POINTS[1] * scale, LABELS)
        np.testing.assert_allclose(model.predict_proba(queries * scale), expected, atol=1e-3)
        scaled = overlap_penalty(jnp.asarray(batch * scale, jnp.float32), num_neighbors=K)
        assert scaled == pytest.approx(float(penalty), abs=1e-4)


def test_the_median_bandwidth_of_plain_neighbours_is_the_graphs():
    """The median over all queries and candidates, with those that coincide."""
    points = np.random.default_rng(1).normal(size=(N, 3)).astype(np.float32)
    points[:25] = 0
    graph = nnk_graph(points, num_neighbors=K, similarity=gaussian("median"))
    weights = np.asarray(knn_graph(graph, similarity=gaussian("median")).weights, np.float64)
    distances = np.asarray(graph.distances, np.float64)
    bandwidth = np.median(distances) / 3
    expected = np.exp(-(distances**2) / (2 * bandwidth**2))
    np.testing.assert_allclose(weights, expected, rtol=1e-4, atol=1e-30)
    fixed = nnk_graph(points, num_neighbors=K, similarity=Gaussian(float(bandwidth), 3.0))
    np.testing.assert_allclose(graph.weights, fixed.weights, atol=1e-5)
