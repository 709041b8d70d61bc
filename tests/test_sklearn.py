"""The estimators: scikit-learn's own checks, and that they say what the library says."""

import numpy as np
import pytest
from sklearn.cluster import DBSCAN
from sklearn.datasets import load_digits, make_circles
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from jnnk.errors import InputError
from jnnk.graph import nnk_graph
from jnnk.sklearn import NNKClassifier, NNKTransformer

pytestmark = pytest.mark.quick_compile

_LEAVES_OUT = "fit_transform leaves every point out of its own neighbourhood, transform cannot"
_ROUNDING = "asks for agreement to 1e-7; batches of problems agree to float32 rounding (see below)"
EXPECTED = {
    "NNKTransformer": {
        "check_transformer_general": _LEAVES_OUT,
        "check_transformer_data_not_an_array": _LEAVES_OUT,
        "check_methods_subset_invariance": _ROUNDING,
    },
    "NNKClassifier": {"check_methods_subset_invariance": _ROUNDING},
}


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"similarity": "linear"}, "similarity must be 'gaussian', 'cosine' or"),
        ({"n_neighbors": 0}, "n_neighbors must be a whole number >= 1, got 0"),
        ({"mode": "weight"}, "mode must be one of weights, connectivity, distance, got 'weight'"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        NNKTransformer(**options).fit(np.ones((3, 2)))
