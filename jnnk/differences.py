"""Distances by the differences of coordinates: right whatever the scale, in the whole range."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

#: Points of a tile of `tiled`: with the queries of a chunk they fit a core's cache.
TILE_POINTS = 512
# Coordinates that are unrolled: with fewer, XLA makes no vector instructions of them on a CPU.
_TILE_COORDINATES = 16
#: Queries that are compared with all points at once.
CHUNK = 64


class Distances(NamedTuple):
    """Distances, with the squares that they are roots of where those are in the dtype's range.

    Attributes:
        distances: floating.
        squares: of the same shape; 0 or infinity where the square leaves the range.
    """

    distances: jax.Array
    squares: jax.Array


def sums_of_squares(values: jax.Array) -> jax.Array:
    """The sum of squares over the last axis, added in pairs: to log2(D) + 2 roundings."""
    values = values * values
    while values.shape[-1] > 1:
        half = -(-values.shape[-1] // 2)
        second = values[..., half:]
        missing = [(0, 0)] * (values.ndim - 1) + [(0, half - second.shape[-1])]
        values = values[..., :half] + jnp.pad(second, missing)
    return values[..., 0]


def power_of_two(values: jax.Array) -> jax.Array:
    """The largest power of two up to each value whose reciprocal is in range too; 1 of 0."""
    info = jnp.finfo(values.dtype)
    _, exponent = jnp.frexp(values)
    exponent = jnp.clip(exponent - 1, info.minexp, info.maxexp - 2)
    return jnp.where(values > 0, jnp.ldexp(jnp.ones_like(values), exponent), 1)


class Farness(NamedTuple):
    """Lengths of vectors in two parts, so that no square leaves the range and all compare.

    Ordered as the two are, one after the other: ``(length)^2 = mantissa * 2^exponent``.

    Attributes:
        exponent: int32; even larger than any other for what does not exist.
        mantissa: floating in [1/2, 1), or 0.
    """

    exponent: jax.Array
    mantissa: jax.Array

    def measured(self) -> Distances:
        """The lengths themselves, infinity for what does not exist."""
        odd = self.exponent & 1
        squares = jnp.where(odd == 1, 2 * self.mantissa, self.mantissa)
        half = (self.exponent - odd) // 2
        exists = self.exponent < _NEVER
        half = jnp.where(exists & (squares > 0), half, 0)
        # In two factors, each in range.
        one = jnp.ones_like(squares)
        first, second = jnp.ldexp(one, half // 2), jnp.ldexp(one, half - half // 2)
        distances = jnp.sqrt(squares) * first * second
        squares = squares * first * second * first * second
        return Distances(*(jnp.where(exists, x, jnp.inf) for x in (distances, squares)))


_NEVER = 2**20


def farness(differences: jax.Array, exists: jax.Array) -> Farness:
    """The `Farness` (...) of vectors (..., D); ``exists`` is bool (...)."""
    largest = jnp.max(jnp.abs(differences), axis=-1)
    power = power_of_two(largest)
    squares = sums_of_squares(differences / power[..., None])
    mantissa, exponent = jnp.frexp(squares)
    _, of_power = jnp.frexp(power)
    exponent = exponent + 2 * (of_power - 1)
    exponent = jnp.where(largest > 0, exponent, -_NEVER)
    return Farness(jnp.where(exists, exponent, _NEVER), jnp.where(exists, mantissa, 0))


def tiled(points: jax.Array) -> jax.Array:
    """Points (N, D), N a multiple of `TILE_POINTS`, as `squares_to_all` takes them."""
    number, dim = points.shape
    points = jnp.pad(points, ((0, 0), (0, -dim % _TILE_COORDINATES)))
    shape = (number // TILE_POINTS, TILE_POINTS, -1, _TILE_COORDINATES)
    return points.reshape(shape).transpose(0, 2, 3, 1)


def squares_to_all(queries: jax.Array, rates: jax.Array, tiles: jax.Array) -> jax.Array:
    """Squared distances (B, N) from queries (B, D) to all points, as multiples of one per query.

    Args:
        queries: (B, D).
        rates: (B,), powers of two that the differences are multiplied by.
        tiles: from `tiled`.

    Returns:
        (B, N), to D + 2 roundings; infinity beyond the range, 0 below it.
    """
    steps, width = tiles.shape[1:3]
    queries = jnp.pad(queries, ((0, 0), (0, steps * width - queries.shape[1])))
    columns = queries.T.reshape(steps, width, -1)

    def of_tile(tile):
        def step(total, part):
            points, coordinates = part
            for number in range(width):
                difference = points[number][None, :] - coordinates[number][:, None]
                difference = difference * rates[:, None]
                total = total + difference * difference
            return total, None

        start = jnp.zeros((queries.shape[0], TILE_POINTS), queries.dtype)
        return jax.lax.scan(step, start, (tile, columns))[0]

    squares = jax.lax.map(of_tile, tiles)
    return squares.transpose(1, 0, 2).reshape(queries.shape[0], -1)


def least_square(dtype: np.dtype, dim: int) -> float:
    """Sums of D squares from this one on lose nothing to squares below the range of the dtype."""
    info = jnp.finfo(dtype)
    return float(info.tiny) / float(info.eps) * 8 * max(dim, 1)
