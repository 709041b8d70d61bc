"""Distances by the differences of coordinates: right whatever the scale, in the whole range."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jnnk._core import typed_jax

# Coordinates that are added in one step: each step writes all sums, and more compile longer.
_UNROLLED = 8


class Distances(NamedTuple):
    """Distances, with the squares that they are roots of where those are in the dtype's range.

    Attributes:
        distances: floating.
        squares: of the same shape; 0 or infinity where the square leaves the range.
    """

    distances: jax.Array
    squares: jax.Array


def are_finite(rows: jax.Array) -> jax.Array:
    """Which rows (N,) of (N, D) have neither NaN nor infinity."""
    # Sums compile in a fraction of the time that `jnp.all` takes, here and elsewhere in the search.
    return jnp.sum(rows - rows, axis=1) == 0


def sums_of_squares(values: jax.Array) -> jax.Array:
    """The sum of squares over the last axis."""
    return jnp.sum(values * values, axis=-1)


def power_of_two(values: jax.Array) -> jax.Array:
    """The largest power of two up to each value whose reciprocal is in range too; 1 of 0."""
    info = typed_jax.finfo(values.dtype)
    bits = jax.lax.bitcast_convert_type(values, f"int{info.bits}")
    powers = jax.lax.bitcast_convert_type(bits >> info.nmant << info.nmant, values.dtype)
    powers = jnp.clip(powers, float(info.tiny), math.ldexp(1.0, int(info.maxexp) - 2))
    return jnp.where(values > 0, powers, 1)


def squares_to_all(queries: jax.Array, points: jax.Array, rates: jax.Array) -> jax.Array:
    """Squared distances (B, N) between queries (B, D) and points (N, D), each row in its own unit.

    Args:
        queries: (B, D).
        points: (N, D).
        rates: (B,), powers of two that the differences are multiplied by.

    Returns:
        Floating, to D + 2 roundings; infinity beyond the range, 0 below it.
    """
    unrolled = min(_UNROLLED, queries.shape[1])
    missing = ((0, 0), (0, -queries.shape[1] % unrolled))
    queries, points = (jnp.pad(x, missing).T for x in (queries, points))

    def step(number: jax.Array, total: jax.Array) -> jax.Array:
        for place in range(unrolled):
            index = number * unrolled + place
            difference = (points[index][None, :] - queries[index][:, None]) * rates[:, None]
            total = total + difference * difference
        return total

    start = jnp.zeros((queries.shape[1], points.shape[1]), queries.dtype)
    return typed_jax.fori_loop(0, len(points) // unrolled, step, start)


def least_square(dtype: DTypeLike, dim: int) -> float:
    """Sums of D squares from this one on lose nothing to squares below the range of the dtype."""
    info = typed_jax.finfo(dtype)
    return float(info.tiny) / float(info.eps) * 8 * max(dim, 1)
