"""Pad, crop and flip."""

import inspect

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jnnk.training import pad_crop_flip

KEY = jax.random.key(0)


def images(dtype=np.uint8, count=200):
    rng = np.random.default_rng(0)
    # No zeros: the padding can be told from the image.
    return rng.integers(1, 256, (count, 6, 7, 3)).astype(dtype)


def draws(source, result, padding):
    """(row, column, flipped) of every result, found by trying all windows of the padded image."""
    margins = ((padding, padding), (padding, padding), (0, 0))
    found = []
    for image, crop in zip(source, np.asarray(result), strict=True):
        padded = np.pad(image, margins)
        height, width, _ = image.shape
        windows = {
            (row, column): padded[row : row + height, column : column + width]
            for row in range(2 * padding + 1)
            for column in range(2 * padding + 1)
        }
        matches = [
            (*corner, flipped)
            for corner, window in windows.items()
            for flipped in (False, True)
            if np.array_equal(window[:, ::-1] if flipped else window, crop)
        ]
        assert len(matches) == 1
        found.append(matches[0])
    return np.array(found)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_every_result_is_a_window_of_the_padded_image(dtype):
    source = images(dtype)
    result = jax.jit(pad_crop_flip, static_argnames="padding")(KEY, source, padding=2)
    assert result.dtype == dtype
    found = draws(source, result, padding=2)
    # Each image draws for itself, evenly: 200 images on 5 x 5 places, half of them mirrored.
    assert len(np.unique(found[:, :2], axis=0)) == 25
    for axis in (0, 1):
        assert np.bincount(found[:, axis]).min() > 200 / 5 / 2
    assert 0.4 < found[:, 2].mean() < 0.6
    # Rows, columns and flips are drawn apart.
    assert np.abs(np.corrcoef(found.T.astype(float)) - np.eye(3)).max() < 0.25


def test_same_key_same_result():
    source = images()
    augment = jax.jit(pad_crop_flip)
    once = augment(KEY, source)
    np.testing.assert_array_equal(once, augment(KEY, source))
    np.testing.assert_array_equal(once, pad_crop_flip(KEY, source))  # jitted or not
    other = augment(jax.random.key(1), source)
    assert (np.asarray(once) != np.asarray(other)).any(axis=(1, 2, 3)).mean() > 0.9


def test_double_precision_draws_alike():
    once = pad_crop_flip(KEY, images())
    with jax.enable_x64(True):
        np.testing.assert_array_equal(pad_crop_flip(KEY, images()), once)


def test_flip_off():
    source = images(count=50)
    assert not draws(source, pad_crop_flip(KEY, source, padding=1, flip=False), 1)[:, 2].any()


def test_no_padding_and_no_flip_is_the_identity():
    source = images()
    np.testing.assert_array_equal(pad_crop_flip(KEY, source, padding=0, flip=False), source)


def test_vmap_over_keys_is_one_call_a_key():
    source = images(count=8)
    keys = jax.random.split(KEY, 3)
    together = jax.jit(jax.vmap(pad_crop_flip, in_axes=(0, None)))(keys, source)
    one = jax.jit(pad_crop_flip)
    for key, result in zip(keys, together, strict=True):
        np.testing.assert_array_equal(result, one(key, source))


def test_gradient_is_one_where_a_pixel_was_kept():
    source = jnp.asarray(images(np.float32, count=4))
    gradient = jax.grad(lambda x: pad_crop_flip(KEY, x).sum())(source)
    kept = np.asarray(pad_crop_flip(KEY, source)) != 0
    assert set(np.unique(gradient)) == {0.0, 1.0}
    assert np.asarray(gradient).sum() == kept.sum()


def test_misuse():
    with pytest.raises(ValueError, match="images: expected"):
        pad_crop_flip(KEY, images()[0])
    with pytest.raises(ValueError, match="padding: expected a whole number of at least 0"):
        pad_crop_flip(KEY, images(), padding=-1)


def test_signature():
    parameters = inspect.signature(pad_crop_flip).parameters.values()
    keyword_only = [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    assert keyword_only == ["padding", "flip"]
