"""Every measure, from activations through the engine, on channels whose answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnnk.graphs import channelwise_nnk_graph, gaussian
from jnnk.measures import (
    OVERLAP_KINDS,
    chance_overlap,
    channel_overlap,
    channels_to_cover,
    cross_overlap,
    gride,
    intrinsic_dimension,
    knn_graph,
    label_overlap,
    label_vote,
    loo_error,
    redundancy,
    redundancy_curve,
)

NUM_IMAGES = 200
CHANNELS = ("first", "copy", "scaled", "noisy", "independent", "permuted", "dead")
COPIES = np.array([0, 1, 2])
UNRELATED = np.array([0, 4, 5])


@pytest.fixture(scope="module")
def activations():
    """(200, 3, 3, 7): post-ReLU-like maps, one channel per name in `CHANNELS`."""
    rng = np.random.default_rng(1)
    first = np.abs(rng.normal(size=(NUM_IMAGES, 3, 3))).astype(np.float32)
    noisy = first + 0.1 * rng.normal(size=first.shape).astype(np.float32)
    independent = np.abs(rng.normal(size=first.shape)).astype(np.float32)
    permuted = first[rng.permutation(NUM_IMAGES)]
    dead = np.full_like(first, 2.5)
    return np.stack([first, first, 3 * first, noisy, independent, permuted, dead], -1)


@pytest.fixture(scope="module")
def labels(activations):
    """Two classes that the first channel separates and the independent one cannot."""
    return jnp.asarray(activations[:, 0, 0, 0] > 0.67, jnp.int32)


def graph_of(activations):
    return channelwise_nnk_graph(jnp.asarray(activations), num_neighbors=10)


@pytest.fixture(scope="module")
def graph(activations):
    return graph_of(activations)


def measures(graph, labels):
    """One value or vector per measure: those per channel, those per pair, those of the layer."""
    dimension = intrinsic_dimension(graph)
    channels = [dimension.mean_degree, dimension.two_nn, dimension.mle]
    channels += [loo_error(graph, labels, 2), label_overlap(graph, labels)]
    pairs = [channel_overlap(graph, kind=kind) for kind in OVERLAP_KINDS]
    pairs += [channel_overlap(knn_graph(graph))]
    return channels, pairs, [redundancy(graph), redundancy_curve(graph).coverage]


def only(graph, channels):
    """The others silenced, as if they were dead."""
    kept = jnp.zeros((len(CHANNELS), 1, 1)).at[channels].set(1)
    return graph._replace(weights=graph.weights * kept)


@pytest.mark.parametrize("kind", OVERLAP_KINDS)
def test_overlap(graph, kind):
    overlap = np.asarray(channel_overlap(graph, kind=kind))
    chance = np.asarray(chance_overlap(graph, num_candidates=NUM_IMAGES - 1, kind=kind))
    assert overlap[0, 1] == pytest.approx(1, abs=1e-6)
    assert overlap[0, 2] == pytest.approx(1, abs=1e-3)
    assert 0.3 < overlap[0, 3] < 0.95  # noise takes some of it
    for other in (4, 5):  # nothing in common: chance, up to the sampling of 200 images
        assert overlap[0, other] == pytest.approx(chance[0, other], rel=0.5)
    assert np.isnan(overlap[6]).all() and np.isnan(overlap[:, 6]).all()
    np.testing.assert_allclose(np.diagonal(overlap)[:6], 1, atol=1e-6)


def test_redundancy(graph):
    assert redundancy(only(graph, COPIES)) == pytest.approx(1, abs=1e-3)
    # Independent neighbourhoods of m among 199 images collide by chance alone: 3 pairs of
    # channels share m^2 / 199 of 3 m neighbours, rescaled by 3 / 2.
    unrelated = only(graph, UNRELATED)
    degree = float(intrinsic_dimension(graph).mean_degree[UNRELATED].mean())
    assert redundancy(unrelated) == pytest.approx(1.5 * degree / 199, rel=0.2)
    shares = jnp.array([0.9, 0.95, 0.99])
    np.testing.assert_array_equal(channels_to_cover(redundancy_curve(only(graph, COPIES)), 0.99), 1)
    np.testing.assert_array_equal(channels_to_cover(redundancy_curve(unrelated), shares), 3)
    # Silent channels add nothing and are chosen last.
    curve = redundancy_curve(unrelated)
    assert sorted(curve.order[:3].tolist()) == UNRELATED.tolist()
    assert curve.coverage[1] < 1 and (curve.coverage[2:] == 1).all()


def test_dimension_and_generalization(graph, labels):
    (degree, two_nn, mle, loo, agreement), _, _ = measures(graph, labels)
    for values in (degree, two_nn, mle, loo, agreement):
        np.testing.assert_allclose(values[np.array([1, 2])], values[0], rtol=1e-3)
    # A permutation of the images is the same point set: same geometry, other labels.
    for values in (degree, two_nn, mle):
        assert values[5] == pytest.approx(float(values[0]), rel=1e-3)
    for other in (4, 5):
        assert loo[0] < 0.35 < 0.4 < loo[other] < 0.6
    assert degree[6] == 0 and np.isnan(two_nn[6]) and np.isnan(mle[6])
    assert loo[6] == 1 and np.isnan(agreement[6])
    assert loo_error(knn_graph(graph), labels, 2)[6] == 1


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("switch", "value"), [("jax_numpy_rank_promotion", "raise"), ("jax_debug_nans", True)]
)
def test_debugging_switches_change_nothing(graph, labels, switch, value):
    """Of the living channels: that a dead one's overlap is NaN is no mistake."""
    alive = jax.tree.map(lambda field: field[:6], graph)
    before = jax.config.values[switch]
    expected = measures(alive, labels)
    jax.config.update(switch, value)
    try:
        found = measures(alive, labels)
        chance_overlap(alive, num_candidates=NUM_IMAGES - 1)
        cross_overlap(alive, alive)
        channels_to_cover(redundancy_curve(alive), jnp.array([0.9]))
        knn_graph(alive, similarity=gaussian("median"))
        label_vote(alive, labels, 2)
        gride(alive.distances)
    finally:
        jax.config.update(switch, before)
    for group, same in zip(expected, found, strict=True):
        for one, other in zip(group, same, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5)


def test_permuting_channels_permutes_every_answer(activations, graph, labels):
    order = np.random.default_rng(0).permutation(len(CHANNELS))
    channels, pairs, layer = measures(graph, labels)
    moved_channels, moved_pairs, moved_layer = measures(graph_of(activations[..., order]), labels)
    for value, moved in zip(channels, moved_channels, strict=True):
        np.testing.assert_allclose(moved, value[order], rtol=1e-5)
    for value, moved in zip(pairs, moved_pairs, strict=True):
        np.testing.assert_allclose(moved, value[order][:, order], atol=1e-6)
    for value, moved in zip(layer, moved_layer, strict=True):
        np.testing.assert_allclose(moved, value, rtol=1e-5)


@pytest.mark.parametrize("change", ["images", "scale"])
def test_permuting_images_or_scaling_a_channel_changes_nothing(activations, graph, labels, change):
    if change == "images":
        order = np.random.default_rng(0).permutation(NUM_IMAGES)
        changed = measures(graph_of(activations[order]), labels[order])
    else:
        changed = measures(graph_of(activations * np.float32([1, 1, 1, 1e-6, 1e6, 7, 1])), labels)
    # Rounding may move a candidate on the edge of the support in or out: one of 200 images.
    for group, same in zip(measures(graph, labels), changed, strict=True):
        for value, moved in zip(group, same, strict=True):
            np.testing.assert_allclose(moved, value, rtol=1e-3, atol=5e-3)
