"""Channel overlap against sets in Python, and on channels whose answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom

from jnnk.graphs import NNKGraph, channelwise_nnk_graph
from jnnk.measures import (
    OVERLAP_KINDS,
    _bootstrap,
    chance_overlap,
    channel_overlap,
    cross_overlap,
    overlap_by_image,
    overlap_interval,
)
from jnnk.measures._bootstrap import layer_overlap
from jnnk.measures._membership import FEWEST_CHANNELS, LARGEST
from jnnk.report.figures import cross_overlap_map

KINDS = tuple(OVERLAP_KINDS)


def make_graph(seed, num_channels=4, num_images=30, num_neighbors=6, density=0.5):
    """Random supports among `num_images` identifiers; candidates in random order."""
    rng = np.random.default_rng(seed)
    order = rng.permuted(
        np.broadcast_to(np.arange(num_images), (num_channels, num_images, num_images)), axis=-1
    )
    weights = rng.random((num_channels, num_images, num_neighbors)).astype(np.float32)
    weights *= rng.random(weights.shape) < density
    return graph_of(order[..., :num_neighbors], weights)


def graph_of(indices, weights):
    indices = jnp.asarray(indices, jnp.int32)
    weights = jnp.asarray(weights)
    zeros = jnp.zeros(weights.shape[:-1], weights.dtype)
    return NNKGraph(indices, weights, zeros, zeros, zeros == 0, jnp.ones_like(weights), zeros > 0)


def image_value(kind, own, other):
    """The formula on two dicts {identifier: weight}, in float64."""
    both = own.keys() & other.keys()
    if kind == "jaccard":
        return len(both) / len(own.keys() | other.keys())
    if not own or not other:
        return 0.0
    if kind == "overlap":
        return len(both) / min(len(own), len(other))
    if kind == "dice":
        return 2 * len(both) / (len(own) + len(other))
    a, b = np.array(list(own.values())), np.array(list(other.values()))
    if kind == "weighted":
        return sum(min(own[j] / a.sum(), other[j] / b.sum()) for j in both)
    return sum(own[j] * other[j] for j in both) / np.linalg.norm(a) / np.linalg.norm(b)


def expected_overlap(kind, graph):
    indices = np.asarray(graph.indices)
    weights = np.asarray(graph.weights, np.float64)
    supports = [
        [{j: w for j, w in zip(*image, strict=True) if w > 0} for image in zip(*c, strict=True)]
        for c in zip(indices, weights, strict=True)
    ]
    num_channels, num_images = weights.shape[:2]
    values = np.full((num_images, num_channels, num_channels), np.nan)
    dead = [not any(c) for c in supports]
    for n, c, d in np.ndindex(values.shape):
        if (supports[c][n] or supports[d][n]) and not (dead[c] or dead[d]):
            values[n, c, d] = image_value(kind, supports[c][n], supports[d][n])
    return values


def nanmean(values):
    counted = (~np.isnan(values)).sum(0)
    return np.where(counted > 0, np.nansum(values, 0) / np.maximum(counted, 1), np.nan)


@pytest.mark.parametrize("kind", KINDS)
def test_overlap_is_the_formula_on_sets(kind):
    graph = make_graph(0, density=0.3)  # some empty neighbourhoods
    graph = graph._replace(weights=graph.weights.at[2].set(0))  # one dead channel
    expected = expected_overlap(kind, graph)
    images = overlap_by_image(graph, kind=kind)
    np.testing.assert_allclose(images, expected, rtol=1e-5)
    np.testing.assert_allclose(channel_overlap(graph, kind=kind), nanmean(expected), rtol=1e-5)
    assert np.isnan(np.asarray(channel_overlap(graph, kind=kind))[2]).all()


@pytest.mark.parametrize("factor", [1, 40, 100_000])
def test_of_many_channels_by_tables_and_by_comparing(factor):
    """Identifiers in one table, in several, and beyond all tables."""
    graph = make_graph(0, num_channels=FEWEST_CHANNELS, num_images=40, num_neighbors=3)
    graph = graph._replace(weights=graph.weights.at[5].set(0).at[7, 3:].set(0))
    far = graph._replace(indices=graph.indices * factor)
    assert (int(far.indices.max()) < LARGEST) == (factor < 100_000)
    few = jax.tree.map(lambda field: field[:9], far)
    for kind in ("jaccard", "overlap", "dice"):
        expected = nanmean(expected_overlap(kind, jax.tree.map(lambda x: x[:9], graph)))
        overlap = channel_overlap(far, kind=kind)
        np.testing.assert_allclose(overlap[:9, :9], expected, rtol=1e-5)
        np.testing.assert_allclose(channel_overlap(few, kind=kind), expected, rtol=1e-5)
    np.testing.assert_allclose(cross_overlap(far, far), channel_overlap(far), rtol=1e-6)


def test_of_many_channels_under_vmap():
    """Which runs both ways of counting."""
    graph = make_graph(0, num_channels=FEWEST_CHANNELS, num_images=4, num_neighbors=2)
    far = graph._replace(indices=graph.indices + np.iinfo(np.int32).max - 4)
    both = jax.vmap(channel_overlap)(jax.tree.map(lambda *x: jnp.stack(x), graph, far))
    for overlap in both:
        np.testing.assert_allclose(overlap, channel_overlap(graph), rtol=1e-6)


def test_pairs_without_an_image_that_counts_are_left_out_of_a_resample():
    graph = make_graph(0, num_channels=3, density=1.0)
    graph = graph._replace(weights=graph.weights.at[:2, 1:].set(0))
    _, interval = layer_overlap(graph, jax.random.key(0))
    expected = overlap_interval(graph, jax.random.key(0))
    limits = expected.mean, expected.mean_lower, expected.mean_upper
    np.testing.assert_allclose(interval, limits, rtol=1e-5)
    assert np.isfinite(interval).all()


@pytest.mark.parametrize("has_empty", [False, True])
def test_the_interval_of_a_layer_is_that_of_the_mean_over_pairs(has_empty, monkeypatch):
    """From the images' means where all images count for all pairs, else in parts."""
    graph = make_graph(3, num_channels=5, density=1.0)
    graph = graph._replace(weights=graph.weights.at[1].set(0))
    if has_empty:
        graph = graph._replace(weights=graph.weights.at[2:4, :6].set(0))
        monkeypatch.setattr(_bootstrap, "_PART", 2000)
    overlap, interval = layer_overlap(graph, jax.random.key(2))
    expected = overlap_interval(graph, jax.random.key(2))
    np.testing.assert_allclose(overlap, expected.pairs, rtol=1e-6)
    limits = expected.mean, expected.mean_lower, expected.mean_upper
    np.testing.assert_allclose(interval, limits, rtol=1e-5)


def test_block_size_does_not_matter():
    graph = make_graph(0)
    for overlap in (channel_overlap, overlap_by_image):
        np.testing.assert_allclose(overlap(graph, block_size=7), overlap(graph), rtol=1e-6)


def test_ids_of_no_neighbours_never_match():
    missing = graph_of(np.full((2, 3, 4), -1), np.zeros((2, 3, 4), np.float32))
    some = missing._replace(
        indices=missing.indices.at[:, :, 0].set(jnp.array([[5], [6]])),
        weights=missing.weights.at[:, :, 0].set(1),
    )
    np.testing.assert_array_equal(channel_overlap(some), np.eye(2))
    assert np.isnan(channel_overlap(missing)).all()
    # A candidate of weight 0 that is a neighbour elsewhere, listed after the real one.
    twice = some._replace(indices=some.indices.at[:, :, 1].set(jnp.array([[6], [5]])))
    np.testing.assert_array_equal(channel_overlap(twice), np.eye(2))


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(KINDS))
def test_permuting_channels_or_images_permutes_the_answer(seed, kind):
    rng = np.random.default_rng(seed)
    graph = make_graph(seed)
    channels, images = rng.permutation(4), rng.permutation(30)
    values = np.asarray(overlap_by_image(graph, kind=kind))
    moved = jax.tree.map(lambda x: x[channels][:, images], graph)
    moved = moved._replace(indices=jnp.asarray(np.argsort(images), jnp.int32)[moved.indices])
    permuted = overlap_by_image(moved, kind=kind)
    np.testing.assert_allclose(permuted, values[images][:, channels][:, :, channels], atol=1e-6)
    np.testing.assert_allclose(values, values.swapaxes(1, 2), atol=1e-6)
    assert (values[~np.isnan(values)] <= 1 + 1e-6).all() and np.nanmin(values) >= 0


@pytest.mark.parametrize("kind", KINDS)
def test_chance_level_is_the_mean_of_random_supports(kind):
    """Degrees differ between the channels; 100 draws, within four standard errors."""
    drawn = [make_graph(seed, density=0.8) for seed in range(100)]
    weights = drawn[0].weights.at[1, :, 3:].set(0)
    graphs = [graph._replace(weights=weights) for graph in drawn]
    different = ~np.eye(4, dtype=bool)
    simulated = np.array([channel_overlap(graph, kind=kind) for graph in graphs])[:, different]
    expected = np.asarray(chance_overlap(graphs[0], num_candidates=30, kind=kind))[different]
    error = simulated.std(0) / np.sqrt(len(graphs))
    assert (error < 0.04 * expected).all()
    assert (np.abs(simulated.mean(0) - expected) < 4 * error).all()


def test_chance_of_full_supports_is_exact():
    """With M = K every support is the whole set."""
    graph = make_graph(3, 2, 6, 6, 1.1)
    np.testing.assert_allclose(chance_overlap(graph, num_candidates=6), 1, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_chance_with_candidates_that_do_not_exist(kind):
    """K beyond the number of other images: the same as without the slots that hold none."""
    graph = make_graph(3, 3, 6, 4)
    more = ((0, 0), (0, 0), (0, 5))
    wide = graph._replace(
        indices=jnp.pad(graph.indices, more, constant_values=-1),
        weights=jnp.pad(graph.weights, more),
        distances=jnp.pad(graph.distances, more, constant_values=np.inf),
    )
    expected = chance_overlap(graph, num_candidates=5, kind=kind)
    found = chance_overlap(wide, num_candidates=5, kind=kind)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(
        channel_overlap(wide, kind=kind), channel_overlap(graph, kind=kind), rtol=1e-6
    )
    full = graph._replace(weights=graph.weights.at[1].set(1.0))  # four neighbours of two
    chance = np.asarray(chance_overlap(full, num_candidates=2, kind=kind))
    assert np.isnan(chance[1]).all() and np.isnan(chance[:, 1]).all()
    lone = jax.tree.map(lambda x: x[:, :1], wide)._replace(weights=jnp.zeros((3, 1, 9)))
    assert np.isnan(chance_overlap(lone, num_candidates=0, kind=kind)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_chance_is_the_sum_over_images(kind):
    """Against sums over the hypergeometric distribution, image by image, over several blocks."""
    graph = make_graph(7, 3, 40, 6, 0.4)
    weights = np.asarray(graph.weights, np.float64)
    expected = np.zeros((3, 3))
    for c, d in np.ndindex(3, 3):
        values = []
        for own, other in zip(weights[c], weights[d], strict=True):
            a, b = own[own > 0], other[other > 0]
            if not len(a) and not len(b):
                continue
            if kind == "weighted":
                shared = np.minimum.outer(a / a.sum(), b / b.sum()).sum() / 39 if len(a) else 0
            elif kind == "cosine":
                norms = np.linalg.norm(a) * np.linalg.norm(b)
                shared = a.sum() * b.sum() / norms / 39 if norms else 0
            else:
                i = np.arange(min(len(a), len(b)) + 1)
                sizes = {
                    "jaccard": len(a) + len(b) - i,
                    "overlap": np.full(len(i), min(len(a), len(b))),
                    "dice": np.full(len(i), (len(a) + len(b)) / 2),
                }[kind]
                shared = hypergeom(39, len(a), len(b)).pmf(i) @ (i / np.maximum(sizes, 1))
            values.append(shared)
        expected[c, d] = np.mean(values)
    found = chance_overlap(graph, num_candidates=39, kind=kind, block_size=16)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_overlap_between_graphs_is_a_block_of_that_of_both_joined(kind):
    graph, other = make_graph(0, density=0.3), make_graph(1, num_channels=3)
    graph = graph._replace(weights=graph.weights.at[2].set(0))
    joined = jax.tree.map(lambda *x: jnp.concatenate(x), graph, other)
    expected = np.asarray(channel_overlap(joined, kind=kind))[:4, 4:]
    found = cross_overlap(graph, other, kind=kind, block_size=16)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert np.isnan(found[2]).all() and np.isfinite(np.delete(found, 2, 0)).all()
    np.testing.assert_allclose(cross_overlap(other, graph, kind=kind), expected.T, rtol=1e-6)
    wide = make_graph(2, num_channels=2, num_neighbors=9)  # K need not be the same
    values = expected_overlap(kind, wide)  # of itself, with other numbers of candidates beside it
    np.testing.assert_allclose(cross_overlap(wide, wide, kind=kind), nanmean(values), rtol=1e-5)
    assert cross_overlap(graph, wide, kind=kind).shape == (4, 2)


def test_the_picture_of_overlap_between_networks_pairs_their_channels():
    """The second is the first in another order, one channel short, and each has a dead one."""
    graph = make_graph(0, num_channels=6)
    graph = graph._replace(weights=graph.weights.at[4].set(0))
    moved = jax.tree.map(lambda x: x[jnp.array([3, 4, 0, 5, 1])], graph)
    matrix = np.asarray(cross_overlap(graph, moved))
    figure = cross_overlap_map(matrix, names=("first", "second"))
    shown = figure.axes[0].images[0].get_array().filled(np.nan)
    np.testing.assert_allclose(np.diagonal(shown)[:4], 1, atol=1e-6)
    assert np.isnan(shown[-1]).all() and np.isnan(shown[:, -1]).all()
    assert np.isfinite(shown[:-1, :-1]).all() and shown.shape == (6, 5)
    assert figure.axes[0].get_title().endswith("overlap by 1.000")
    assert figure.axes[0].get_ylabel() == "channels of first; 1 dead, grey"
    cross_overlap_map(np.full((2, 3), np.nan), names=("dead", "dead"))


@pytest.mark.thorough
def test_kept_ties_estimate_the_overlap_of_all():
    """Two channels silent for 60 % and 50 % of 600 images, at random: sets that share a third."""
    rng = np.random.default_rng(0)
    silent = rng.random((600, 2)) < [0.6, 0.5]
    values = np.where(silent, 0, rng.random((600, 2))).astype(np.float32)
    graph = channelwise_nnk_graph(values[:, None], num_neighbors=50)
    both = silent.all(1)
    images = np.asarray(overlap_by_image(graph))[both, 0, 1]
    truth = both.sum() / silent.any(1).sum()
    assert 0.3 < truth < 0.5
    # Sketches of 50 have a standard error of sqrt(J (1 - J) / 50), the same in all tied images.
    assert images.mean() == pytest.approx(truth, abs=3 * np.sqrt(truth * (1 - truth) / 50))
    assert images.std() < 0.02


def test_bootstrap_interval():
    graph = make_graph(5, num_images=300, density=0.8)
    graph = graph._replace(weights=graph.weights.at[2:].set(0))
    values = expected_overlap("jaccard", graph)[:, 0, 1]
    interval = overlap_interval(graph, jax.random.key(0))
    assert interval.pairs[0, 1] == pytest.approx(values.mean(), rel=1e-5)
    assert interval.mean == pytest.approx(values.mean(), rel=1e-5)  # the only live pair
    # The normal approximation of the same interval.
    width = 2 * 1.96 * values.std() / np.sqrt(len(values))
    assert interval.mean_upper - interval.mean_lower == pytest.approx(width, rel=0.25)
    assert interval.pairs_lower[0, 1] < interval.pairs[0, 1] < interval.pairs_upper[0, 1]
    assert np.isnan(interval.pairs_lower[2]).all()


def test_jit_vmap_and_grad():
    graphs = jax.tree.map(lambda *x: jnp.stack(x), make_graph(1), make_graph(2))
    stacked = jax.jit(jax.vmap(channel_overlap))(graphs)
    for i in range(2):
        alone = channel_overlap(jax.tree.map(lambda x, i=i: x[i], graphs))
        np.testing.assert_allclose(stacked[i], alone, rtol=1e-6)

    graph = make_graph(4)

    def mean(weights):
        return channel_overlap(graph._replace(weights=weights), kind="cosine").mean()

    gradient = jax.grad(mean)(graph.weights)
    assert np.isfinite(gradient).all()
    direction = jnp.where(graph.weights > 0, graph.weights * jnp.cos(graph.indices), 0)
    step = 1e-2
    difference = mean(graph.weights + step * direction) - mean(graph.weights - step * direction)
    assert (gradient * direction).sum() == pytest.approx(float(difference) / (2 * step), rel=1e-2)


def test_misuse_is_named():
    graph = make_graph(0)
    with pytest.raises(ValueError, match="kind: expected one of"):
        channel_overlap(graph, kind="iou")
    with pytest.raises(ValueError, match="channel, image, neighbour"):
        channel_overlap(jax.tree.map(lambda x: x[0], graph))
    with pytest.raises(ValueError, match="level"):
        overlap_interval(graph, jax.random.key(0), level=95)
    with pytest.raises(ValueError, match="num_candidates"):
        chance_overlap(graph, num_candidates=-1)
    with pytest.raises(
        ValueError, match="other: expected a graph of the same 30 images, got one of 9"
    ):
        cross_overlap(graph, make_graph(0, num_images=9))
    with pytest.raises(ValueError, match="channel, image, neighbour"):
        cross_overlap(graph, jax.tree.map(lambda x: x[0], graph))
