"""Convolutions of a traced program with other numbers of channels than they were traced with."""

from typing import Any

import jax
import jax.numpy as jnp

from jnnk.network._program import Operation
from jnnk.network._vector_conv import vector_conv

_NHWC = ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
#: Parameters of the operation that the function of `jax.lax` takes too.
_OPTIONS = ("padding", "lhs_dilation", "rhs_dilation", "precision", "preferred_element_type")


def small_conv(
    operation: Operation, images: jax.Array, kernel: jax.Array, *, groups: int = 1
) -> jax.Array:
    """The convolution of an operation, on fewer channels.

    Args:
        operation: a ``conv_general_dilated``.
        images: its left side, with some of its channels.
        kernel: its right side, with some of its channels.
        groups: feature groups that are left.
    """
    params = operation.params
    options: dict[str, Any] = {name: params[name] for name in _OPTIONS}
    strides, numbers = params["window_strides"], params["dimension_numbers"]
    if groups == 1 and _is_plain(operation, images):
        padding = options.pop("padding")
        return vector_conv(images, kernel, strides, padding, dimension_numbers=numbers, **options)
    return jax.lax.conv_general_dilated(
        images,
        kernel,
        strides,
        dimension_numbers=numbers,
        feature_group_count=groups,
        **options,
    )


def _is_plain(operation: Operation, images: jax.Array) -> bool:
    """Whether a convolution is one of images in NHWC, without dilation."""
    params = operation.params
    return (
        tuple(map(tuple, params["dimension_numbers"])) == _NHWC
        and all(size == 1 for size in (*params["lhs_dilation"], *params["rhs_dilation"]))
        and jnp.issubdtype(images.dtype, jnp.floating)
    )
