"""Redundancy and the greedy curve against sets in Python."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnnk.graphs import NNKGraph
from jnnk.measures import (
    RedundancyCurve,
    channels_to_cover,
    redundancy,
    redundancy_by_image,
    redundancy_curve,
)


def graph_of(supports):
    """From nested lists (C, Q) of lists of identifiers."""
    width = max(1, *(len(image) for channel in supports for image in channel))
    indices = np.full((len(supports), len(supports[0]), width), -1, np.int32)
    for c, channel in enumerate(supports):
        for n, image in enumerate(channel):
            indices[c, n, : len(image)] = image
    weights = jnp.asarray(indices >= 0, jnp.float32)
    zeros = jnp.zeros(weights.shape[:-1])
    return NNKGraph(jnp.asarray(indices), weights, zeros, zeros, zeros == 0, weights, zeros > 0)


def random_supports(seed, num_channels=5, num_images=150):
    rng = np.random.default_rng(seed)
    return [
        [rng.choice(12, rng.integers(0, 6), replace=False).tolist() for _ in range(num_images)]
        for _ in range(num_channels)
    ]


def test_ends_of_the_scale():
    assert redundancy(graph_of([[[1, 2]], [[3]], [[4, 5, 6]]])) == 0
    assert redundancy(graph_of([[[1, 2]], [[2, 1]], [[1, 2]]])) == pytest.approx(1)
    # A dead channel takes no part; with one channel there is nothing to compare.
    assert redundancy(graph_of([[[1, 2]], [[2, 1]], [[]]])) == pytest.approx(1)
    assert np.isnan(redundancy(graph_of([[[1, 2]], [[]]])))


def test_redundancy_is_the_formula_on_sets():
    supports = random_supports(0)
    values = []
    for image in zip(*supports, strict=True):
        present = [set(s) for s in image if s]
        value = np.nan
        if len(present) > 1:
            share = 1 - len(set.union(*present)) / sum(map(len, present))
            value = share * len(present) / (len(present) - 1)
        values.append(value)
    graph = graph_of(supports)
    assert redundancy(graph) == pytest.approx(np.nanmean(values), rel=1e-5)
    np.testing.assert_allclose(redundancy_by_image(graph), values, rtol=1e-5, atol=1e-6)


def test_curve_is_the_greedy_choice_on_sets():
    supports = random_supports(1)
    supports[3] = [[] for _ in supports[3]]
    left = [[set(s) for s in channel] for channel in supports]
    order, gains = [], []
    for _ in supports:
        sizes = [-1 if c in order else sum(map(len, left[c])) for c in range(len(left))]
        best = int(np.argmax(sizes))
        order.append(best)
        gains.append(sizes[best])
        chosen = [set(s) for s in left[best]]
        left = [[s - t for s, t in zip(c, chosen, strict=True)] for c in left]
    curve = redundancy_curve(graph_of(supports))
    np.testing.assert_array_equal(curve.order, order)
    np.testing.assert_allclose(curve.coverage, np.cumsum(gains) / np.sum(gains), rtol=1e-6)
    assert order[-1] == 3 and curve.coverage[-2] == 1


def test_identifiers_may_be_of_any_size():
    graph = graph_of(random_supports(2))
    largest = np.iinfo(np.int32).max
    far = graph._replace(
        indices=jnp.where(graph.indices >= 0, largest - graph.indices * 50_000, -1)
    )
    np.testing.assert_array_equal(redundancy_by_image(far), redundancy_by_image(graph))
    for curve, other in zip(redundancy_curve(far), redundancy_curve(graph), strict=True):
        np.testing.assert_array_equal(curve, other)


def test_a_weighted_choice_is_of_the_largest_products():
    supports, weights = random_supports(3, num_channels=8), np.arange(8) % 3 / 4
    left = [[set(s) for s in channel] for channel in supports]
    order = []
    for _ in supports:
        gains = np.array([sum(map(len, channel)) for channel in left]) * weights
        gains[order] = -1
        order.append(int(np.argmax(gains)))
        chosen = [set(s) for s in left[order[-1]]]
        left = [[s - t for s, t in zip(c, chosen, strict=True)] for c in left]
    curve = redundancy_curve(graph_of(supports), weights=jnp.asarray(weights, jnp.float32))
    np.testing.assert_array_equal(curve.order, order)


def test_channels_to_cover():
    curve = RedundancyCurve(jnp.arange(4), jnp.array([0.5, 0.9, 0.97, 1.0]))
    np.testing.assert_array_equal(channels_to_cover(curve, [0.9, 0.95, 0.99, 1.0]), [2, 3, 4, 4])
    assert channels_to_cover(curve, 0.2) == 1
    nothing = redundancy_curve(graph_of([[[]], [[]]]))
    assert np.isnan(nothing.coverage).all() and channels_to_cover(nothing, 0.9) == 0


def test_copies_need_one_channel():
    channel = random_supports(2)[0]
    curve = redundancy_curve(graph_of([channel] * 4))
    np.testing.assert_array_equal(curve.coverage, 1)
    np.testing.assert_array_equal(channels_to_cover(curve, [0.9, 0.95, 0.99]), 1)


def test_order_of_channels_and_images_does_not_matter():
    supports = random_supports(3)
    rng = np.random.default_rng(0)
    channels, images = rng.permutation(5), rng.permutation(150)
    moved = [[supports[c][n] for n in images] for c in channels]
    graph, permuted = graph_of(supports), graph_of(moved)
    assert redundancy(permuted) == pytest.approx(float(redundancy(graph)), rel=1e-6)
    np.testing.assert_allclose(
        redundancy_curve(permuted).coverage, redundancy_curve(graph).coverage, rtol=1e-6
    )


def test_vmap():
    graphs = jax.tree.map(
        lambda *x: jnp.stack(x), *(graph_of(random_supports(seed)) for seed in (4, 5))
    )
    both = jax.vmap(redundancy)(graphs)
    assert both[1] == pytest.approx(float(redundancy(graph_of(random_supports(5)))))
    curves = jax.vmap(redundancy_curve)(graphs)
    np.testing.assert_array_equal(
        curves.order[0], redundancy_curve(graph_of(random_supports(4))).order
    )


def test_misuse_is_named():
    graph = jax.tree.map(lambda x: x[0], graph_of(random_supports(0)))
    for function in (redundancy, redundancy_curve):
        with pytest.raises(ValueError, match="channel, image, neighbour"):
            function(graph)
