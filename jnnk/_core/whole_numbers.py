"""Whole numbers as users give them: options, and arrays of labels and indices."""

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def whole_number(name: str, value: Any, *, least: int = 1) -> int:
    """An option as Python's own integer.

    Args:
        name: of the argument.
        value: what was given; floats and booleans are no whole numbers.
        least: the smallest that has a meaning.

    Raises:
        ValueError: if it is no whole number, is traced, or is below ``least``.
    """
    if not is_whole_number(value, least=least):
        raise ValueError(f"{name}: expected a whole number of at least {least}, got {value!r}")
    return operator.index(value)


def is_whole_number(value: Any, *, least: int = 1) -> bool:
    """Whether `whole_number` takes the value."""
    try:
        return not isinstance(value, bool | np.bool_) and operator.index(value) >= least
    except TypeError:
        return False


def to_int32(values: Any, *, otherwise: int) -> jax.Array | np.ndarray:
    """Integers as int32, those beyond its range replaced: a conversion alone would wrap them.

    To do before a transformation takes them, which converts 64 bits to 32 by itself.

    Args:
        values: array of integers; one of another kind is returned as it is, to be refused.
        otherwise: what stands for a number out of range.

    Returns:
        An array of the same shape, NumPy's stay NumPy's.
    """
    if not isinstance(values, jax.Array | np.ndarray) or values.dtype == np.int32:
        return values
    if not jnp.issubdtype(values.dtype, jnp.integer):
        return values
    own, info = jnp.iinfo(values.dtype), np.iinfo(np.int32)
    if own.min >= info.min and own.max <= info.max:
        return values.astype(np.int32)
    is_inside = values <= values.dtype.type(info.max)
    if own.min < info.min:
        is_inside &= values >= values.dtype.type(info.min)
    where = jnp.where if isinstance(values, jax.Array) else np.where
    # What wraps here is replaced; an unsigned dtype could not hold -1.
    return where(is_inside, values.astype(np.int32), np.int32(otherwise))
