"""Convs of any number of channels at the speed of the next round one.

XLA's CPU backend computes channels in vectors: a conv of 29 channels is slower than one of 32, and
one of 8 no faster than one of 16. Pruned networks have such convs.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

# Channels are multiples of half a vector, or a quarter of one, and several pixels fill a vector.
_VECTOR, _HALF, _QUARTER = 16, 8, 4


def vector_conv(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    **options: Any,
) -> jax.Array:
    """``jax.lax.conv_general_dilated`` without dilation or groups, with full vectors on a CPU.

    There, channels of zeros are added; and where one pixel's channels fill no vector, a conv of
    stride 1 gives several neighbouring pixels of a row as channels of one position, by a kernel as
    much wider that holds the given one once for each of them, shifted.

    Args:
        lhs: ``(N, H, W, Cin)``.
        rhs: ``(h, w, Cin, Cout)``.
        window_strides: of both axes.
        padding: zeros before and after, of both axes.
        **options: the others of ``conv_general_dilated``, as ``flax.linen.Conv`` gives them.

    Returns:
        ``(N, H', W', Cout)``, equal up to rounding; infinity and NaN reach neighbouring pixels.
    """
    plain = partial(jax.lax.conv_general_dilated, padding=padding, **options)
    inputs, outputs = map(_rounded, rhs.shape[2:])
    width = lhs.shape[2] + sum(padding[1]) - rhs.shape[1] + 1
    pixels = max(1, _VECTOR // min(inputs, outputs))
    if tuple(window_strides) != (1, 1) or width % pixels:
        pixels = 1
    if pixels == 1 and (inputs, outputs) == rhs.shape[2:]:
        return plain(lhs, rhs, window_strides)

    def fitted(lhs, rhs):
        more = inputs - rhs.shape[2]
        lhs = _padded(lhs, ((0, 0), (0, 0), (0, 0), (0, more)))
        kernel = _padded(rhs, ((0, 0), (0, 0), (0, more), (0, outputs - rhs.shape[3])))
        if pixels == 1:
            return plain(lhs, kernel, window_strides)[..., : rhs.shape[3]]
        shifted = [
            _padded(kernel, ((0, 0), (pixel, pixels - 1 - pixel), (0, 0), (0, 0)))
            for pixel in range(pixels)
        ]
        out = plain(lhs, jnp.concatenate(shifted, axis=3), (1, pixels))
        return out.reshape(*out.shape[:2], width, outputs)[..., : rhs.shape[3]]

    default = partial(plain, window_strides=window_strides)
    return jax.lax.platform_dependent(lhs, rhs, cpu=fitted, default=default)


def _padded(array: jax.Array, padding: Sequence[tuple[int, int]]) -> jax.Array:
    """Adds zeros; ``jnp.pad`` takes ten times as long to trace."""
    if not any(map(any, padding)):
        return array
    zero = jnp.zeros((), array.dtype)
    return jax.lax.pad(array, zero, [(before, after, 0) for before, after in padding])


def _rounded(channels: int) -> int:
    return _QUARTER if channels <= _QUARTER else -(-channels // _HALF) * _HALF
