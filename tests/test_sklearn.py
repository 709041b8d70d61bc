"""The estimators: scikit-learn's own checks, and that they say what the library says."""

import numpy as np
import pytest
from sklearn.cluster import DBSCAN, HDBSCAN, OPTICS, AgglomerativeClustering, SpectralClustering
from sklearn.datasets import load_digits, make_circles
from sklearn.manifold import Isomap, SpectralEmbedding
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import (
    LocalOutlierFactor,
    RadiusNeighborsTransformer,
    sort_graph_by_row_values,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from jnnk import InputError
from jnnk.graphs import nnk_graph
from jnnk.sklearn import NNKClassifier, NNKTransformer

_LEAVES_OUT = "fit_transform leaves every point out of its own neighbourhood, transform cannot"
EXPECTED = {
    "NNKTransformer": {
        "check_transformer_general": _LEAVES_OUT,
        "check_transformer_data_not_an_array": _LEAVES_OUT,
    },
    "NNKClassifier": {},
}


@pytest.mark.thorough
@parametrize_with_checks(
    [NNKTransformer(), NNKClassifier()],
    expected_failed_checks=lambda estimator: EXPECTED[type(estimator).__name__],
    xfail_strict=True,
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def digits():
    pixels, labels = load_digits(return_X_y=True)
    return pixels[:200], labels[:200]


def test_the_graph_is_that_of_nnk_graph(digits):
    pixels, _ = digits
    points, queries = pixels[:120], pixels[120:]
    transformer = NNKTransformer(n_neighbors=8).fit(points)
    own = nnk_graph(points.astype(np.float32), num_neighbors=8)
    found = transformer.nnk_graph()
    np.testing.assert_array_equal(found.indices, own.indices)
    np.testing.assert_allclose(found.weights, own.weights, atol=1e-5)
    matrix = transformer.fit_transform(points)
    assert matrix.shape == (120, 120) and (matrix.diagonal() == 0).all()
    np.testing.assert_allclose(matrix.toarray(), own.to_scipy().toarray(), atol=1e-5)
    # One by one as all at once, and a point that was fitted is its own neighbour.
    whole = transformer.transform(queries).toarray()
    single = np.concatenate([transformer.transform(query[None]).toarray() for query in queries[:5]])
    np.testing.assert_allclose(single, whole[:5], atol=1e-5)
    np.testing.assert_allclose(transformer.transform(points).toarray(), np.eye(120), atol=1e-3)
    distances = transformer.kneighbors_graph(queries, mode="distance").tocoo()
    expected = np.linalg.norm(queries[distances.row] - points[distances.col], axis=1)
    np.testing.assert_allclose(distances.data, expected, rtol=1e-5)
    ones = transformer.kneighbors_graph(queries)
    np.testing.assert_array_equal(ones.toarray(), whole > 0)
    assert len(transformer.get_feature_names_out()) == 120


def test_probabilities_are_interpolated_labels(digits):
    pixels, labels = digits
    names = np.array([f"digit {label}" for label in labels])
    model = NNKClassifier(n_neighbors=8).fit(pixels[:120], names[:120])
    weights = NNKTransformer(n_neighbors=8).fit(pixels[:120]).transform(pixels[120:]).toarray()
    votes = weights @ (names[:120, None] == model.classes_)
    np.testing.assert_allclose(
        model.predict_proba(pixels[120:]), votes / votes.sum(1, keepdims=True), atol=1e-5
    )
    assert model.score(pixels[120:], names[120:]) > 0.8
    # No geometry around the query: every candidate is where it is.
    same = NNKClassifier(n_neighbors=8).fit(np.zeros((20, 64)), [0] * 15 + [1] * 5)
    np.testing.assert_allclose(same.predict_proba(np.zeros((1, 64))), [[0.75, 0.25]])


@pytest.mark.thorough
def test_more_neighbours_than_points_are_those_there_are(digits):
    pixels, labels = digits
    model = NNKClassifier(500).fit(pixels[:30], labels[:30])
    assert model.nnk_graph().indices.shape == (30, 29)
    assert model.nnk_graph(pixels[30:35]).indices.shape == (5, 30)
    all_there_are = NNKClassifier(30).fit(pixels[:30], labels[:30])
    np.testing.assert_array_equal(
        model.predict_proba(pixels[30:60]), all_there_are.predict_proba(pixels[30:60])
    )
    assert NNKTransformer(5).fit_transform(pixels[:1]).nnz == 0  # one point has none


def test_in_a_pipeline(digits):
    pixels, labels = digits
    search = GridSearchCV(
        make_pipeline(StandardScaler(), NNKClassifier(n_neighbors=8)),
        {"nnkclassifier__similarity": ["gaussian", "cosine"]},
        cv=2,
    ).fit(pixels, labels)
    assert (search.cv_results_["mean_test_score"] > 0.8).all()
    circles, which = make_circles(120, factor=0.4, random_state=0)
    clusters = make_pipeline(
        NNKTransformer(mode="distance"), DBSCAN(0.3, min_samples=2, metric="precomputed")
    ).fit_predict(circles)
    assert set(zip(clusters.tolist(), which.tolist(), strict=True)) in (
        {(0, 0), (1, 1)},
        {(0, 1), (1, 0)},
    )


@pytest.mark.filterwarnings("ignore:.*not fully connected")
@pytest.mark.parametrize(
    ("mode", "consumer"),
    [
        ("weights", SpectralClustering(2, affinity="precomputed", random_state=0)),
        ("weights", SpectralEmbedding(2, affinity="precomputed", random_state=0)),
        ("distance", Isomap(n_neighbors=None, radius=10.0, metric="precomputed")),
        ("distance", DBSCAN(1.0, min_samples=2, metric="precomputed")),
        ("distance", HDBSCAN(min_samples=2, metric="precomputed", copy=True)),
        ("distance", OPTICS(min_samples=2, max_eps=2.0, metric="precomputed")),
        ("distance", LocalOutlierFactor(1, metric="precomputed")),
        ("distance", RadiusNeighborsTransformer(radius=2.0, metric="precomputed")),
        ("connectivity", AgglomerativeClustering(2)),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_takes_graphs_takes_these(mode, consumer):
    """Consumers of precomputed sparse graphs, as those of `KNeighborsTransformer`, and their
    symmetric forms.
    """
    points = np.random.default_rng(0).normal(size=(40, 3))
    graph = NNKTransformer(10, mode=mode).fit_transform(points)
    assert graph.indices.dtype == graph.indptr.dtype == np.int32
    graph = (graph + graph.T) / 2 if mode == "weights" else graph.maximum(graph.T)
    if mode == "distance":
        graph = sort_graph_by_row_values(graph, warn_when_not_sorted=False)
    if isinstance(consumer, AgglomerativeClustering):
        found = consumer.set_params(connectivity=graph).fit_predict(points)
    elif hasattr(consumer, "fit_predict"):
        found = consumer.fit_predict(graph)
    else:
        found = consumer.fit_transform(graph)
    assert found.shape[0] == 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"similarity": "linear"}, "similarity: expected 'gaussian', 'cosine' or"),
        ({"n_neighbors": True}, "n_neighbors: expected a whole number of at least 1, got True"),
        ({"n_neighbors": 0}, "n_neighbors: expected a whole number of at least 1, got 0"),
        ({"n_neighbors": True}, "n_neighbors: expected a whole number of at least 1, got True"),
        ({"n_neighbors": 2.0}, "n_neighbors: expected a whole number of at least 1, got 2.0"),
        ({"mode": "weight"}, "mode: expected one of weights, connectivity, distance, got 'weight'"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        NNKTransformer(**options).fit(np.ones((3, 2)))
