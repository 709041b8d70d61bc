"""How windows of positions become one, of activations (N, H, W, C)."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array, lax


def _none(values: Array, window: int) -> Array:
    return values


def _mean(values: Array, window: int) -> Array:
    ones = jnp.ones((1, *values.shape[1:3], 1), values.dtype)  # edge windows hold fewer
    return _windows(values, window, 0.0, lax.add) / _windows(ones, window, 0.0, lax.add)


def _max(values: Array, window: int) -> Array:
    return _windows(values, window, -jnp.inf, lax.max)


def _subsample(values: Array, window: int) -> Array:
    return values[:, ::window, ::window]


#: Name -> function of the activations and the side of a window.
POOLINGS: dict[str, Callable[[Array, int], Array]] = {
    "none": _none,
    "mean": _mean,
    "max": _max,
    "subsample": _subsample,
}


def _windows(values: Array, window: int, start: float, combine: Callable[[Any, Any], Any]) -> Array:
    missing = [(0, 0), *((0, -side % window) for side in values.shape[1:3]), (0, 0)]
    shape = (1, window, window, 1)
    return lax.reduce_window(
        values, jnp.asarray(start, values.dtype), combine, shape, shape, missing
    )
