"""The other penalties on pairs of channels, and penalties as a term of the loss."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jnnk import InputError
from jnnk.measures import channel_cka
from jnnk.penalties import PENALTIES, cka_penalty, decorrelation_penalty, make_regularizer

_OTHERS = ~np.eye(5, dtype=bool)


def _batch(seed=0):
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(5, 5))
    return (rng.normal(size=(20, 2, 3, 5)) @ mixing).astype(np.float32)


def test_decorrelation_is_the_mean_squared_correlation():
    batch = _batch()
    expected = np.corrcoef(batch.reshape(-1, 5).astype(np.float64).T)[_OTHERS] ** 2
    np.testing.assert_allclose(decorrelation_penalty(batch), expected.mean(), rtol=1e-4)
    large = jnp.asarray(batch * (3e38 / np.abs(batch).max()))
    value, gradient = jax.value_and_grad(decorrelation_penalty)(large)
    np.testing.assert_allclose(value, expected.mean(), rtol=1e-4)
    assert jnp.isfinite(gradient).all()


def test_cka_is_that_of_the_baselines():
    batch = _batch()
    expected = np.asarray(channel_cka(batch))[_OTHERS].mean()
    np.testing.assert_allclose(cka_penalty(batch), expected, rtol=1e-4)


@pytest.mark.parametrize("width", [256, 1024])
def test_independent_channels_cost_nothing(width):
    channels = np.random.default_rng(0).normal(size=(128, width, 8)).astype(np.float32)
    # 28 pairs, each about normal with variance 2 / N^2.
    assert abs(cka_penalty(channels)) < 4 * np.sqrt(2 / 28) / 128


@pytest.mark.parametrize("images", [1, 2, 3])
def test_cka_of_fewer_than_four_images_is_zero(images):
    value, gradient = jax.value_and_grad(cka_penalty)(_batch()[:images])
    assert value == 0 and (np.asarray(gradient) == 0).all()
    assert jnp.isfinite(jax.grad(cka_penalty)(_batch()[:4])).all()


def test_cka_leaves_out_what_varies_in_one_image():
    batch = _batch()
    expected = cka_penalty(batch[..., 1:])
    batch[1:, ..., 0] = 0.7
    np.testing.assert_allclose(cka_penalty(batch), expected, rtol=1e-5)
    assert jnp.isfinite(jax.grad(cka_penalty)(batch)).all()


@pytest.mark.parametrize("function", [decorrelation_penalty, cka_penalty])
def test_derivative_transforms_and_awkward_batches(function):
    rng = np.random.default_rng(1)
    batch, direction = _batch().astype(np.float64), rng.normal(size=(20, 2, 3, 5))
    with jax.enable_x64(True):
        slope = np.sum(jax.grad(function)(jnp.asarray(batch)) * direction)
        above, below = (function(jnp.asarray(batch + sign * 1e-6 * direction)) for sign in (1, -1))
        np.testing.assert_allclose(slope, (above - below) / 2e-6, rtol=1e-5)
    both = jax.vmap(function)(np.stack([_batch(), _batch(1)]))
    np.testing.assert_allclose(both[1], function(_batch(1)), rtol=1e-5)
    awkward = _batch()
    awkward[3], awkward[..., 1] = 0, awkward[..., 2]
    awkward[..., 0] = 0.3  # dead
    value, gradient = jax.value_and_grad(function)(awkward)
    assert 0 < value < 1 and np.isfinite(gradient).all()
    live = function(awkward[..., 1:])
    np.testing.assert_allclose(value, live, rtol=1e-5)
    value, gradient = jax.value_and_grad(function)(np.ones_like(awkward))
    assert value == 0 and np.isfinite(gradient).all()


def test_a_regularizer_is_strength_times_the_mean_of_its_layers():
    activations = {"a/conv1": _batch(), "a/conv2": _batch(1), "b/conv1": _batch(2)}
    regularizer = make_regularizer("cka", strength=-2.0, layers=("a/*",))
    value = regularizer(activations, jnp.zeros(20, int), jax.random.key(0))
    expected = -(cka_penalty(_batch()) + cka_penalty(_batch(1)))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert set(PENALTIES) == {"overlap", "decorrelation", "cka"}


def test_what_a_regularizer_cannot_be():
    with pytest.raises(InputError, match="expected one of overlap, decorrelation, cka"):
        make_regularizer("l1", strength=1.0)
    regularizer = make_regularizer("overlap", strength=1.0, layers=("layer3*",))
    with pytest.raises(InputError, match=r"none matches layer3\*; known: conv1"):
        regularizer({"conv1": _batch()}, jnp.zeros(20, int), jax.random.key(0))


@pytest.mark.parametrize("penalty", [decorrelation_penalty, cka_penalty])
@pytest.mark.parametrize("scale", [1.0, 1e-20])
def test_gradients_are_finite_for_faint_channels(penalty, scale):
    activations = np.random.default_rng(0).random((16, 2, 2, 4)) * scale
    activations[..., 1] *= 1e-10  # variances whose squares underflow
    activations[..., 2] = 0
    activations[3, 0, 0, 2] = 1e-20
    value, gradient = jax.value_and_grad(penalty)(jnp.asarray(activations, jnp.float32))
    assert value != 0 and abs(value) < 1 and jnp.isfinite(gradient).all()
    activations[..., 1] *= 1e10
    strong = penalty(jnp.asarray(activations / scale, jnp.float32))
    np.testing.assert_allclose(value, strong, rtol=1e-4)
