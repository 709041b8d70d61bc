"""The overlap penalty: its gradient, its transforms, awkward batches, and what it does."""

from functools import partial

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jnnk.graphs import channelwise_nnk_graph
from jnnk.measures import channel_overlap
from jnnk.penalties import SOFT_OVERLAP_KINDS, overlap_penalty, soft_channel_overlap
from jnnk.penalties._channel_pairs import channel_points, mean_of_pairs

_K = 6


def _batch(seed=0, size=40, channels=5, noise=0.3):
    """Channels that all see the same images, each through a little noise."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(size, 9))
    views = [base + noise * rng.normal(size=(size, 9)) for _ in range(channels)]
    return np.maximum(np.stack(views, -1), 0).astype(np.float32).reshape(size, 3, 3, channels)


@jax.jit
@partial(jax.value_and_grad, has_aux=True)
def penalty_and_overlap(batch):
    """The penalty and what it is made of, as one program for all tests."""
    overlap = soft_channel_overlap(batch, num_neighbors=_K)
    return mean_of_pairs(overlap.pairs, overlap.compared), overlap


def value_and_grad(batch):
    (value, _), gradient = penalty_and_overlap(batch)
    return value, gradient


def soft_overlap(batch):
    return penalty_and_overlap(batch)[0][1]


def _hard(batch):
    pairs = np.asarray(channel_overlap(channelwise_nnk_graph(batch, num_neighbors=_K)))
    return np.nanmean(pairs[~np.eye(len(pairs), dtype=bool)])


def test_gradient_is_that_of_finite_differences_in_float64():
    rng = np.random.default_rng(1)
    batch = rng.normal(size=(16, 4, 3))
    direction, step = rng.normal(size=batch.shape), 1e-6
    with jax.enable_x64(True):
        function = jax.jit(jax.value_and_grad(partial(overlap_penalty, num_neighbors=_K)))
        gradient = np.asarray(function(jnp.asarray(batch))[1])
        above, below = (
            float(function(jnp.asarray(batch + sign * step * direction))[0]) for sign in (1, -1)
        )
    difference = (above - below) / (2 * step)
    assert abs(difference) > 1e-3
    np.testing.assert_allclose(np.sum(gradient * direction), difference, rtol=1e-5)


@pytest.mark.parametrize("name", SOFT_OVERLAP_KINDS)
def test_kinds_are_similarities_with_gradients(name):
    kind = SOFT_OVERLAP_KINDS[name]
    rng = np.random.default_rng(2)
    first, second, direction = rng.uniform(0.01, 0.6, (3, 7))

    def value(weights, other):
        a, b = kind.code(weights), kind.code(other)
        return kind.similarity((a * b).sum(), (a * a).sum(), (b * b).sum())

    with jax.enable_x64(True):
        slope = jax.grad(value)(first, second) @ direction
        step = 1e-6 * direction
        difference = (value(first + step, second) - value(first - step, second)) / 2e-6
        np.testing.assert_allclose(slope, difference, rtol=1e-4)
        assert 0 < value(first, second) < 1
        np.testing.assert_allclose(value(first, second), value(second, first), rtol=1e-12)
        np.testing.assert_allclose(value(first, first), 1, rtol=1e-12)
        # Nothing in common: no weight where the other has one.
        apart = jnp.arange(7) < 3
        assert value(jnp.where(apart, first, 0), jnp.where(apart, 0, second)) == 0


def test_ruzicka_is_near_that_of_the_hard_minimum():
    kind = SOFT_OVERLAP_KINDS["ruzicka"]
    rng = np.random.default_rng(3)
    for first, second in rng.uniform(size=(20, 2, 5)).astype(np.float32):
        p, q = first / first.sum(), second / second.sum()
        a, b = kind.code(first), kind.code(second)
        soft = kind.similarity((a * b).sum(), (a * a).sum(), (b * b).sum())
        np.testing.assert_allclose(soft, np.minimum(p, q).sum() / np.maximum(p, q).sum(), atol=0.2)


def test_agrees_with_the_graphs_of_the_channels():
    batch = _batch()
    overlap = soft_overlap(batch)
    assert overlap.converged.all() and overlap.converged.shape == (5, 40)
    np.testing.assert_array_equal(overlap.channels, np.arange(5))
    np.testing.assert_array_equal(overlap.compared, ~np.eye(5, dtype=bool))
    kind = SOFT_OVERLAP_KINDS["ruzicka"]
    graph = channelwise_nnk_graph(batch, num_neighbors=_K)
    dense = np.zeros((5, 40, 40), np.float32)
    np.put_along_axis(dense, np.asarray(graph.indices), np.asarray(graph.weights), axis=2)
    code = np.asarray(kind.code(dense)).reshape(5, 40, -1)
    shared = np.einsum("cbf,dbf->bcd", code, code)
    size = np.diagonal(shared, axis1=1, axis2=2)
    expected = kind.similarity(shared, size[:, :, None], size[:, None]).mean(0)
    np.testing.assert_allclose(overlap.pairs, np.where(overlap.compared, expected, 0), atol=1e-4)
    np.testing.assert_allclose(
        value_and_grad(batch)[0], expected[~np.eye(5, dtype=bool)].mean(), atol=1e-4
    )


def test_order_of_images_and_channels_does_not_matter():
    batch = _batch()
    rng = np.random.default_rng(4)
    images, channels = rng.permutation(40), rng.permutation(5)
    value, gradient = value_and_grad(batch)
    again, moved = value_and_grad(batch[images][..., channels])
    np.testing.assert_allclose(again, value, rtol=1e-4)
    np.testing.assert_allclose(moved, gradient[images][..., channels], atol=1e-4)


def test_few_steps_lower_the_hard_overlap():
    batch = start = _batch(noise=0.15)
    for _ in range(10):
        _, gradient = value_and_grad(batch)
        batch = batch - 0.1 * jnp.linalg.norm(batch) * gradient / jnp.linalg.norm(gradient)
    assert _hard(start) > 0.1 and _hard(batch) < 0.3 * _hard(start)


def test_awkward_batches_have_finite_gradients():
    batch = _batch()
    batch[:10, ..., 1] = 0  # many images alike
    batch[1] = batch[0]
    batch[2] = 7.0  # a constant image
    batch[..., 0] = 0.3  # a dead channel
    batch[..., 2] = batch[..., 3]  # the same channel twice
    value, gradient = value_and_grad(batch)
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0 and 0 < value < 1
    assert (gradient[..., 0] == 0).all()
    overlap = soft_overlap(batch)
    assert not overlap.compared[0].any() and overlap.compared[1, 2]
    np.testing.assert_allclose(overlap.pairs[2, 3], 1, atol=1e-5)
    for nothing in (np.zeros_like(batch), np.full_like(batch, 0.1)):
        value, gradient = value_and_grad(nothing)
        assert value == 0 and (gradient == 0).all()
    for scale in (1e-15, 1e15):
        scaled = value_and_grad(_batch() * np.float32(scale))
        np.testing.assert_allclose(scaled[0], value_and_grad(_batch())[0], rtol=1e-3)
        assert np.isfinite(scaled[1]).all()


def test_images_that_are_not_numbers_take_no_part():
    batch = _batch()
    batch[3, 0, 0, 1] = np.nan
    overlap = soft_overlap(batch)
    assert not overlap.converged[1, 3] and overlap.converged.sum() == 5 * 40 - 1
    value, gradient = value_and_grad(batch)
    assert 0 < value < 1 and np.isfinite(gradient[np.arange(40) != 3]).all()


def test_vmap():
    batches = np.stack([_batch(), _batch(7)])
    together = jax.jit(jax.vmap(partial(overlap_penalty, num_neighbors=_K)))(batches)
    alone = [value_and_grad(batch)[0] for batch in batches]
    np.testing.assert_allclose(together, np.stack(alone), rtol=1e-4)


def test_channels_are_drawn_by_the_key():
    batch = np.tile(_batch(), 3)
    keys = [jax.random.key(seed) for seed in (0, 0, 1)]
    drawn = [channel_points(batch, num_channels=5, key=key) for key in keys]
    for points, channels in drawn:
        expected = np.moveaxis(batch.reshape(40, 9, 15)[..., channels], -1, 0)
        np.testing.assert_array_equal(points, expected)
        assert len(set(channels.tolist())) == 5
    np.testing.assert_array_equal(drawn[0][1], drawn[1][1])
    assert set(drawn[0][1].tolist()) != set(drawn[2][1].tolist())


def test_misuse_raises():
    batch = jnp.ones((8, 3, 3, 4))
    with pytest.raises(ValueError, match="activations"):
        overlap_penalty(batch[:, 0, 0])
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        overlap_penalty(batch[:1])
    with pytest.raises(ValueError, match="floating"):
        overlap_penalty(jnp.ones((8, 3, 3, 4), int))
    with pytest.raises(ValueError, match="kind: expected one of ruzicka"):
        overlap_penalty(batch, kind="jaccard")
    with pytest.raises(ValueError, match="num_neighbors"):
        overlap_penalty(batch, num_neighbors=0)
    with pytest.raises(ValueError, match="similarity"):
        overlap_penalty(batch, similarity=jnp.dot)
    with pytest.raises(ValueError, match="key"):
        overlap_penalty(batch, num_channels=3)
