"""Random augmentation on the device."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, Shaped

from jnnk._core.arrays import ArrayLike
from jnnk._core.whole_numbers import whole_number


def pad_crop_flip(
    key: PRNGKeyArray,
    images: Shaped[ArrayLike, "N H W C"],
    *,
    padding: int = 4,
    flip: bool = True,
) -> Shaped[Array, "N H W C"]:
    """Images shifted at random by up to ``padding`` pixels, half of them mirrored.

    The augmentation of the CIFAR ResNets (He et al. 2016, section 4.2): pad by zeros on each
    side, crop a window of the original size at a random place, flip left-right with probability
    1/2. Each image has its own, independent draw.

    Args:
        key: JAX random key; the same key gives the same result.
        images: (N, H, W, C), any dtype; raw images, so that the padding is black.
        padding: pixels added on each side, 0 or more.
        flip: whether to mirror.

    Returns:
        (N, H, W, C) of the same dtype.

    Raises:
        ValueError: ``images`` has not four axes or ``padding`` is no whole number of at least 0.
    """
    if images.ndim != 4:
        raise ValueError(f"images: expected (N, H, W, C), got shape {images.shape}")
    padding = whole_number("padding", padding, least=0)
    crop_key, flip_key = jax.random.split(key)
    corners = jax.random.randint(crop_key, (len(images), 2), 0, 2 * padding + 1, jnp.int32)
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))

    def crop(image: jax.Array, corner: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (*corner, jnp.int32(0)), images.shape[1:])

    crops = jax.vmap(crop)(padded, corners)
    if not flip:
        return crops
    mirrored = jax.random.bernoulli(flip_key, jnp.float32(0.5), (len(images), 1, 1, 1))
    return jnp.where(mirrored, crops[:, :, ::-1], crops)
