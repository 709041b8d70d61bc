"""Label interpolation against a loop over images, and outcomes at the edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnnk.graphs import NNKGraph, nnk_graph
from jnnk.measures import (
    channel_vote,
    error_rate,
    knn_graph,
    label_interpolation,
    label_overlap,
    label_vote,
    loo_error,
    predicted_label,
)

NUM_CLASSES = 4


def make_graph(seed=0, num_channels=3, num_images=50, num_neighbors=6):
    rng = np.random.default_rng(seed)
    shape = (num_channels, num_images, num_neighbors)
    indices = rng.integers(0, num_images, shape)
    indices[:, :, -1] = -1  # a candidate that does not exist
    weights = rng.random(shape).astype(np.float32) * (rng.random(shape) < 0.6) * (indices >= 0)
    weights[:, 0] = 0  # an image without neighbours
    zeros = jnp.zeros(shape[:2])
    return NNKGraph(
        jnp.asarray(indices, jnp.int32),
        jnp.asarray(weights, jnp.float32),
        zeros,
        zeros,
        zeros == 0,
        jnp.ones(shape),
        zeros > 0,
    )


@pytest.fixture
def labels():
    return jnp.asarray(np.random.default_rng(9).integers(0, NUM_CLASSES, 50), jnp.int32)


def expected_votes(graph, labels):
    indices, weights = np.asarray(graph.indices), np.asarray(graph.weights, np.float64)
    votes = np.zeros((*weights.shape[:-1], NUM_CLASSES))
    for place in np.ndindex(weights.shape):
        if weights[place] > 0:
            votes[(*place[:-1], int(labels[indices[place]]))] += weights[place]
    total = votes.sum(-1, keepdims=True)
    return np.divide(votes, total, out=np.zeros_like(votes), where=total > 0)


def test_interpolation_is_the_formula(labels):
    graph = make_graph()
    expected = expected_votes(graph, labels)
    votes = label_interpolation(graph, labels, NUM_CLASSES)
    np.testing.assert_allclose(votes, expected, atol=1e-6)
    one = jax.tree.map(lambda x: x[1], graph)
    np.testing.assert_allclose(
        label_interpolation(one, labels, NUM_CLASSES), expected[1], atol=1e-6
    )
    predicted = np.where(expected.sum(-1) > 0, expected.argmax(-1), -1)
    wrong = (predicted != np.asarray(labels)).mean(-1)
    np.testing.assert_allclose(loo_error(graph, labels, NUM_CLASSES), wrong, rtol=1e-6)


def test_dead_channels_vote_nothing(labels):
    graph = make_graph()
    graph = graph._replace(weights=graph.weights.at[1].set(0))
    votes = label_interpolation(graph, labels, NUM_CLASSES)
    assert (votes[1] == 0).all()
    np.testing.assert_array_equal(predicted_label(votes[1]), -1)
    # Also where every label is 0, which "argmax of nothing" would get right.
    assert loo_error(graph, jnp.zeros(50, jnp.int32), NUM_CLASSES)[1] == 1
    living = channel_vote(votes[np.array([0, 2])])
    np.testing.assert_allclose(channel_vote(votes), living, rtol=1e-6)
    np.testing.assert_array_equal(predicted_label(channel_vote(votes))[0], -1)
    nothing = graph._replace(weights=jnp.zeros_like(graph.weights))
    aggregate = channel_vote(label_interpolation(nothing, labels, NUM_CLASSES))
    assert (aggregate == 0).all() and error_rate(aggregate, labels) == 1


def test_every_neighbour_right_is_no_error():
    """Two clusters, neighbours within: error 0; with the other cluster's labels, 1."""
    indices = jnp.asarray([[1], [0], [3], [2]], jnp.int32)
    one = jnp.ones((4, 1))
    graph = NNKGraph(indices, one, one[:, 0], one[:, 0], one[:, 0] > 0, one, one[:, 0] < 0)
    assert loo_error(graph, jnp.array([1, 1, 2, 2]), 3) == 0
    assert loo_error(graph, jnp.array([0, 1, 2, 1]), 3) == 1
    # A label that is no class takes its share of the weight and votes for none.
    assert (label_interpolation(graph, jnp.array([7, 7, 1, 1]), 3)[:2] == 0).all()


def test_plain_knn_counts_every_candidate(labels):
    graph = make_graph()
    votes = label_interpolation(knn_graph(graph), labels, NUM_CLASSES)
    counts = [
        np.bincount(np.asarray(labels)[ids[:-1]], minlength=NUM_CLASSES)
        for ids in np.asarray(graph.indices[0])
    ]
    np.testing.assert_allclose(votes[0], np.array(counts) / 5, rtol=1e-6)


def test_permutations(labels):
    graph = make_graph()
    rng = np.random.default_rng(0)
    channels, images = rng.permutation(3), rng.permutation(50)
    moved = jax.tree.map(lambda x: x[channels][:, images], graph)
    to = jnp.asarray(np.argsort(images), jnp.int32)
    moved = moved._replace(indices=jnp.where(moved.indices >= 0, to[moved.indices], -1))
    np.testing.assert_allclose(
        loo_error(moved, labels[images], NUM_CLASSES),
        loo_error(graph, labels, NUM_CLASSES)[channels],
    )


def test_vmap_and_grad(labels):
    graphs = jax.tree.map(lambda *x: jnp.stack(x), make_graph(0), make_graph(1))
    both = jax.vmap(lambda graph: loo_error(graph, labels, NUM_CLASSES))(graphs)
    np.testing.assert_allclose(both[1], loo_error(make_graph(1), labels, NUM_CLASSES))

    graph = make_graph()
    weights = graph.weights

    def total(weights):
        votes = label_interpolation(graph._replace(weights=weights), labels, NUM_CLASSES)
        return jnp.square(votes).sum()

    gradient = jax.grad(total)(weights)
    assert np.isfinite(gradient).all()
    step = 1e-2 * weights * jnp.cos(10 * weights)
    change = total(weights + step) - total(weights - step)
    assert 2 * (gradient * step).sum() == pytest.approx(float(change), rel=1e-2)


def test_the_vote_of_all_channels_needs_one_at_a_time(labels):
    graph = make_graph()
    graph = graph._replace(weights=graph.weights.at[1].set(0).at[2, :20].set(0))
    expected = expected_votes(graph, labels)
    voters = np.maximum((expected.sum(-1) > 0).sum(0), 1)
    votes = label_vote(graph, labels, NUM_CLASSES)
    np.testing.assert_allclose(votes, expected.sum(0) / voters[:, None], atol=1e-6)
    of_all = channel_vote(label_interpolation(graph, labels, NUM_CLASSES))
    np.testing.assert_allclose(votes, of_all, atol=1e-7)


@pytest.mark.parametrize("num_classes", [2, 7, 1000])
def test_the_winner_alone_is_that_of_all_votes(num_classes):
    """Weights that tie often: the class of the smallest number among equals."""
    rng = np.random.default_rng(1)
    graph = make_graph(2)
    graph = graph._replace(weights=jnp.round(2 * graph.weights) / 2)
    labels = rng.integers(-1, num_classes + 1, 50)  # -1 and num_classes are no classes
    wrong = np.zeros((3, 50), bool)
    for channel, query in np.ndindex(3, 50):
        votes = np.zeros(num_classes)
        for index, weight in zip(
            graph.indices[channel, query].tolist(),
            graph.weights[channel, query].tolist(),
            strict=True,
        ):
            if weight > 0 and 0 <= labels[index] < num_classes:
                votes[labels[index]] += weight
        best = int(votes.argmax()) if votes.any() else None
        wrong[channel, query] = best != labels[query] or labels[query] < 0
    assert 0 < wrong.mean() < 1
    found = loo_error(graph, labels, num_classes)
    np.testing.assert_allclose(found, wrong.mean(1), rtol=1e-6)
    votes = label_interpolation(graph, labels, num_classes)
    np.testing.assert_allclose(error_rate(votes, labels), wrong.mean(1), rtol=1e-6)


def test_no_label_is_right_where_there_is_no_vote():
    """Labels of -1, which unlabelled images have, are what "no vote" is called too."""
    graph, nobody = make_graph(), jnp.full(50, -1)
    np.testing.assert_array_equal(loo_error(graph, nobody, NUM_CLASSES), 1)
    votes = jnp.zeros((50, NUM_CLASSES))
    assert error_rate(votes, nobody) == 1
    some = nobody.at[:10].set(1)
    assert (loo_error(graph, some, NUM_CLASSES) >= 0.8).all()


def test_labels_are_those_of_the_points(labels):
    graph = make_graph()
    few = labels[:40]
    index = np.where(np.asarray(graph.weights) > 0, graph.indices, 0)
    for measure, axis in ((label_interpolation, -1), (label_vote, (0, -1))):
        jitted = jax.jit(measure, static_argnums=2)
        closed = jax.jit(lambda labels, measure=measure: measure(graph, labels, NUM_CLASSES))
        for wrong in (lambda labels, m=measure: m(graph, labels, NUM_CLASSES), closed):
            with pytest.raises(ValueError, match=r"got 40, but a neighbour has index 4\d"):
                wrong(few)
        beyond = np.isnan(jitted(graph, few, NUM_CLASSES)).any(-1)  # indices are not known there
        np.testing.assert_array_equal(beyond, (index >= 40).any(axis))
        assert not np.isnan(jitted(graph, labels, NUM_CLASSES)).any()
    # Of queries against more points, where the numbers of labels and of queries happen to agree.
    queries = jax.tree.map(lambda field: field[:, :40], graph)
    for measure in (loo_error, label_overlap):
        arguments = (NUM_CLASSES,) if measure is loo_error else ()
        with pytest.raises(ValueError, match="a neighbour has index"):
            measure(queries, few, *arguments)
        jitted = jax.jit(measure, static_argnums=(2,) if arguments else ())
        assert np.isnan(jitted(queries, few, *arguments)).all()
        with pytest.raises(ValueError, match="each of the 50 images, got 40"):
            measure(graph, few, *arguments)
    # Candidates that are no neighbours may have any index.
    near = graph._replace(weights=jnp.where(graph.indices < 40, graph.weights, 0))
    assert np.isfinite(label_interpolation(near, few, NUM_CLASSES)).all()


def test_misuse_is_named(labels):
    graph = make_graph()
    with pytest.raises(ValueError, match=r"graph: expected weights \(C, Q, K\)"):
        label_vote(jax.tree.map(lambda field: field[0], graph), labels, NUM_CLASSES)
    for measure in (label_interpolation, label_vote, loo_error):
        for number in (0, 4.0, True, None):
            with pytest.raises(ValueError, match="num_classes: expected a whole number"):
                measure(graph, labels, number)
    with pytest.raises(ValueError, match="labels: expected one axis of integers"):
        loo_error(graph, labels.astype(jnp.float32), NUM_CLASSES)
    with pytest.raises(ValueError, match="each of the 50 images, got 40"):
        loo_error(graph, labels[:40], NUM_CLASSES)


def test_labels_of_more_queries_than_points_are_refused(labels):
    """The graph knows how many points there are, whoever is asked about."""
    points = jax.random.normal(jax.random.key(0), (20, 3))
    queries = jax.random.normal(jax.random.key(1), (50, 3))
    graph = nnk_graph(points, queries=queries, num_neighbors=5)
    assert graph.num_points.tolist() == [20] * 50
    assert label_interpolation(graph, labels[:20], NUM_CLASSES).shape == (50, NUM_CLASSES)
    channels = jax.tree.map(lambda field: field[None], graph)
    for number in (19, 50):
        said = f"labels: expected one of each of the 20 points, got {number}"
        with pytest.raises(ValueError, match=said):
            label_interpolation(graph, labels[:number], NUM_CLASSES)
        with pytest.raises(ValueError, match=said):
            label_vote(channels, labels[:number], NUM_CLASSES)
        # In a transformation the number of points is not known before: the answer is none.
        for measure, given in ((label_interpolation, graph), (label_vote, channels)):
            jitted = jax.jit(measure, static_argnums=2)
            assert np.isnan(jitted(given, labels[:number], NUM_CLASSES)).all()
            assert np.isfinite(jitted(given, labels[:20], NUM_CLASSES)).all()
    # A graph made by hand may not say it; then its indices do.
    unknown = graph._replace(num_points=None)
    assert label_interpolation(unknown, labels, NUM_CLASSES).shape == (50, NUM_CLASSES)
