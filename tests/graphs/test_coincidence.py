"""Points in one place: what explains them, and what every measure says of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnnk.graphs import channelwise_nnk_graph, cosine, gaussian, nnk_graph
from jnnk.measures import (
    aggregate_consistency,
    channel_overlap,
    intrinsic_dimension,
    knn_graph,
    label_interpolation,
    label_overlap,
    loo_error,
    overlap_by_image,
    redundancy_by_image,
)
from jnnk.penalties import soft_channel_overlap
from jnnk.sklearn import NNKClassifier, NNKTransformer

# Fewer than half are silent: the median distance is that of images that lie apart.
N, K, SILENT = 60, 8, 25


def laplacian(x, y):
    """A similarity of the user's own."""
    return jnp.exp(-jnp.abs(x - y).sum() / 4)


SIMILARITIES = [gaussian(), gaussian("median"), gaussian(0.5), cosine(), laplacian]
NAMES = ["kth_neighbor", "median", "half", "cosine", "laplacian"]
NAMES = ["kth_neighbor", "median", "half", "cosine", "laplacian"]


def points_with_ties():
    """20 points in one place, a pair in another, a lone one of NaN, and 37 others."""
    points = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
    points[5:25] = points[5]
    points[40] = points[31]
    points[50] = np.nan
    return points


def expected_ties(points, queries=None):
    """The candidates in the place of each query, by comparison of all coordinates."""
    own = queries is None
    queries = points if own else queries
    for number, query in enumerate(queries):
        same = (points == query).all(1)
        if own:
            same[number] = False
        yield np.flatnonzero(same)[:K]


@pytest.mark.parametrize("similarity", SIMILARITIES, ids=NAMES)
def test_what_is_in_the_place_of_a_query_explains_it(similarity):
    points = points_with_ties()
    graph = nnk_graph(points, num_neighbors=K, similarity=similarity)
    matrix, ties = graph.to_scipy().toarray(), list(expected_ties(points))
    for number, tied in enumerate(ties):
        if len(tied):
            expected = np.zeros(N)
            expected[tied] = 1 / len(tied)
            np.testing.assert_allclose(matrix[number], expected, rtol=1e-6)
    tied = np.array([len(t) > 0 for t in ties])
    assert tied.sum() == 22 and max(map(len, ties)) == K
    assert (graph.errors[tied] == 0).all() and (graph.kkt_residual[tied] == 0).all()
    assert graph.converged.sum() == N - 1
    # Others are as they are: one point in a place where many are represents them all.
    others = np.flatnonzero(~tied & np.isfinite(points).all(1))
    assert ((matrix[others] > 0).sum(1) > 0).all() and (graph.errors[others] > 0).all()


def test_new_queries_in_the_place_of_points():
    points, queries = points_with_ties(), points_with_ties()[::7]
    graph = nnk_graph(points, queries=queries, num_neighbors=K)
    for row, tied in zip(
        graph.to_scipy(num_points=N).toarray(), expected_ties(points, queries), strict=True
    ):
        assert len(tied) == 0 or (np.flatnonzero(row) == tied).all()
    same = np.full_like(points, 0.1)
    nothing = nnk_graph(same, queries=same[::7], num_neighbors=K)
    assert (nothing.weights == 0).all() and (nothing.errors == 1).all()
    elsewhere = nnk_graph(same, queries=2 * same[::7], num_neighbors=K)
    assert (elsewhere.indices == jnp.arange(K)).all() and (elsewhere.weights.sum(1) > 0).all()


@pytest.mark.parametrize("similarity", SIMILARITIES, ids=NAMES)
def test_only_where_all_are_the_same_there_are_no_edges(similarity):
    """0.1 has no exact mean of 60, one point of NaN takes no part, one that differs is enough."""
    points = np.full((N, 4), 0.1, np.float32)
    points[3, 0] = np.nan
    graph = nnk_graph(points, num_neighbors=K, similarity=similarity)
    assert (graph.weights == 0).all() and (graph.errors == 1).all()
    assert graph.converged.sum() == N - 1
    points[7] = [0.1, 0.1, 0.1, 0.5]
    graph = nnk_graph(points, num_neighbors=K, similarity=similarity)
    assert (graph.weights[8] == np.float32(1 / K)).all() and graph.errors[8] == 0


@pytest.mark.thorough
def test_cosines_of_copies_and_zero_vectors():
    """Multiples by powers of two have the same unit vectors; zero vectors coincide."""
    points = np.random.default_rng(1).normal(size=(20, 3)).astype(np.float32)
    points[4], points[9], points[12:15] = 2 * points[3], points[3] / 8, 0
    graph = nnk_graph(points, num_neighbors=5, similarity=cosine())
    matrix = graph.to_scipy().toarray()
    np.testing.assert_array_equal(np.flatnonzero(matrix[3]), [4, 9])
    np.testing.assert_array_equal(np.flatnonzero(matrix[13]), [12, 14])
    assert matrix[3, 4] == matrix[13, 12] == 0.5 and (graph.distances[13, :2] == 0).all()
    # All parallel: nothing that the cosine sees tells one from another.
    parallel = np.outer(2.0 ** np.arange(9), [1, 2, 2]).astype(np.float32)
    assert (nnk_graph(parallel, num_neighbors=3, similarity=cosine()).weights == 0).all()
    assert (nnk_graph(parallel, num_neighbors=3).weights > 0).any()


@pytest.mark.thorough
def test_weights_of_ties_are_constants():
    points = jnp.asarray(points_with_ties()[:30])

    def total(points):
        graph = nnk_graph(points, num_neighbors=K)
        return (graph.weights * jnp.arange(1, K + 1.0)[None])[5:25].sum() + graph.errors[5:25].sum()

    value, gradient = jax.value_and_grad(total)(points)
    assert value == pytest.approx(20 * (K + 1) / 2) and (gradient == 0).all()
    whole = jax.grad(lambda x: nnk_graph(x, num_neighbors=K).weights.sum())(points)
    assert np.isfinite(whole).all() and (whole != 0).any()


def silent_for_one_class():
    """Images and labels: a channel that is silent for class 0 and fires for class 1."""
    values = 1 + np.abs(np.random.default_rng(0).normal(size=(N, 4))).astype(np.float32)
    values[:SILENT] = 0
    return values, (np.arange(N) >= SILENT).astype(int)


@pytest.mark.parametrize("similarity", SIMILARITIES, ids=NAMES)
def test_a_channel_that_knows_the_class_by_silence_errs_nowhere(similarity):
    values, labels = silent_for_one_class()
    graph = nnk_graph(values, num_neighbors=K, similarity=similarity)
    knn = knn_graph(graph, similarity=similarity if similarity is not laplacian else None)
    for used in (graph, knn, knn_graph(graph)):
        assert loo_error(used, labels, 2) == 0 and label_overlap(used, labels) == 1
        votes = np.asarray(label_interpolation(used, labels, 2))
        np.testing.assert_allclose(votes, np.eye(2)[labels], atol=1e-6)
    np.testing.assert_allclose(knn.weights[:SILENT], 1, rtol=1e-6)
    assert (graph.errors[:SILENT] == 0).all()
    # The estimates of dimension are those of the images that lie apart.
    whole, apart = (
        intrinsic_dimension(graph),
        intrinsic_dimension(jax.tree.map(lambda field: field[SILENT:], graph)),
    )
    assert whole.two_nn == pytest.approx(float(apart.two_nn), rel=1e-5)
    assert whole.mle == pytest.approx(float(apart.mle), rel=1e-5)
    assert (whole.degree[:SILENT] == K).all()


def test_estimators():
    """More copies than candidates of two points, as a neighbours' classifier sees them."""
    points = np.repeat([[0.0, 0.0], [5.0, 5.0]], 30, axis=0)
    labels = np.repeat(["a", "b"], 30)
    model = NNKClassifier().fit(points, labels)
    assert model.predict([[0, 0], [5, 5]]).tolist() == ["a", "b"]
    np.testing.assert_array_equal(model.predict_proba([[0, 0], [5, 5]]), np.eye(2))
    matrix = NNKTransformer(10).fit_transform(points)
    assert (np.diff(matrix.indptr) == 10).all()
    distances = NNKTransformer(10, mode="distance").fit(points).transform([[5.0, 5.0]])
    assert distances.nnz == 10 and (distances.data == 0).all() and distances.indices.min() == 30


def test_overlap_and_redundancy_of_silent_channels():
    """Two channels silent for the same images overlap there, of another for the others not."""
    rng = np.random.default_rng(2)
    values = 1 + rng.random((100, 1, 3)).astype(np.float32)
    values[:50, :, :2], values[50:, :, 2] = 0, 0
    graph = channelwise_nnk_graph(values, num_neighbors=K)
    images = overlap_by_image(graph)
    assert (images[:50, 0, 1] == 1).all() and (images[10:50, 0, 2] < 1).all()
    of_two = redundancy_by_image(jax.tree.map(lambda field: field[:2], graph))
    assert (of_two[:50] == 1).all()
    soft = soft_channel_overlap(jnp.asarray(values), num_neighbors=K)
    hard = np.asarray(channel_overlap(graph))
    assert soft.compared.sum() == 6 and soft.pairs[0, 1] == pytest.approx(hard[0, 1], abs=0.1)
    values[..., 2] = 0.1  # dead
    soft = soft_channel_overlap(jnp.asarray(values), num_neighbors=K)
    np.testing.assert_array_equal(soft.compared, [[0, 1, 0], [1, 0, 0], [0, 0, 0]])


@pytest.mark.thorough
def test_a_channel_takes_no_side_about_images_in_one_place():
    """A silent channel beside one that says what the whole layer says changes no statement."""
    rng = np.random.default_rng(3)
    alone = rng.normal(size=(40, 6, 1)).astype(np.float32)
    silent = np.zeros_like(alone)
    silent[-1] = 1  # not dead: all images but one are in one place

    def consistency(activations):
        options = {"num_neighbors": 5, "similarity": gaussian(2.0)}
        flat = activations.reshape(len(activations), -1)
        channels = channelwise_nnk_graph(activations, **options)
        return aggregate_consistency(activations, channels, nnk_graph(flat, **options))

    one, both = consistency(alone), consistency(np.concatenate([alone, silent], axis=2))
    assert one.neighbors_everywhere > 0.3
    for name in ("neighbors_everywhere", "neighbors_everywhere_kept", "union_share"):
        assert getattr(both, name) == pytest.approx(float(getattr(one, name)), abs=0.1), name
