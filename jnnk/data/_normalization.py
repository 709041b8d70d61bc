"""Scaling of images to zero mean and unit deviation, channel by channel."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from jnnk._core.arrays import ArrayLike


class Normalization(NamedTuple):
    """What images are normalised with: ``(images / 255 - mean) / std``.

    Attributes:
        mean: (C,) what is subtracted, in units of images / 255.
        std: (C,) what is divided by, likewise.
    """

    mean: Float[np.ndarray, " C"]
    std: Float[np.ndarray, " C"]


def normalize(
    images: Num[ArrayLike, "... C"], normalization: Normalization
) -> Float[Array, "... C"]:
    """Scale images to zero mean and unit deviation a channel.

    Args:
        images: (..., C) uint8 or floating, 0 to 255.
        normalization: mean and deviation of the images.

    Returns:
        (..., C) float32, ``(images / 255 - mean) / std``.
    """
    scaled = jnp.asarray(images).astype(jnp.float32) / 255
    mean, std = (jnp.broadcast_to(jnp.asarray(x, jnp.float32), scaled.shape) for x in normalization)
    return (scaled - mean) / std


def channel_statistics(images: np.ndarray) -> Normalization:
    """Mean and deviation a channel of ``images / 255``, from exact integer sums.

    Args:
        images: (N, H, W, C) uint8.

    Returns:
        float32 (C,) each; the deviation is 1 where a channel is constant.
    """
    total = np.zeros(images.shape[-1])
    squares = np.zeros(images.shape[-1])
    for start in range(0, len(images), 1000):  # in blocks: the float64 copy stays small
        block = images[start : start + 1000].astype(np.float64)
        total += block.sum((0, 1, 2))
        squares += (block**2).sum((0, 1, 2))
    count = images[..., 0].size
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return Normalization(
        (mean / 255).astype(np.float32), np.where(std > 0, std / 255, 1).astype(np.float32)
    )
