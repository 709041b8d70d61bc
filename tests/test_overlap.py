"""Channel overlap against sets in Python, and on channels whose answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jnnk.graph import NNKGraph
from jnnk.overlap import OVERLAP_KINDS, chance_overlap, channel_overlap
from jnnk.overlap_bootstrap import overlap_interval

pytestmark = pytest.mark.quick_compile

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
    images = channel_overlap(graph, kind=kind, per_image=True)
    np.testing.assert_allclose(images, expected, rtol=1e-5)
    np.testing.assert_allclose(channel_overlap(graph, kind=kind), nanmean(expected), rtol=1e-5)
    assert np.isnan(np.asarray(channel_overlap(graph, kind=kind))[2]).all()


def test_block_size_does_not_matter():
    graph = make_graph(0)
    for per_image in (False, True):
        blocks = channel_overlap(graph, per_image=per_image, block_size=7)
        np.testing.assert_allclose(blocks, channel_overlap(graph, per_image=per_image), rtol=1e-6)


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
    values = np.asarray(channel_overlap(graph, kind=kind, per_image=True))
    moved = jax.tree.map(lambda x: x[channels][:, images], graph)
    moved = moved._replace(indices=jnp.asarray(np.argsort(images), jnp.int32)[moved.indices])
    permuted = channel_overlap(moved, kind=kind, per_image=True)
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
    with pytest.raises(ValueError, match="kind must be one of"):
        channel_overlap(graph, kind="iou")
    with pytest.raises(ValueError, match="channel, image, neighbour"):
        channel_overlap(jax.tree.map(lambda x: x[0], graph))
    with pytest.raises(ValueError, match="level"):
        overlap_interval(graph, jax.random.key(0), level=95)
    with pytest.raises(ValueError, match="num_candidates"):
        chance_overlap(graph, num_candidates=2)
