"""Singular values of many small matrices at once, by one-sided Jacobi rotations."""

from functools import reduce
from operator import add

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jnnk._core import typed_jax
from jnnk._core.arrays import ArrayLike
from jnnk._core.precision import contract

Column = list[jax.Array]


@jax.custom_jvp
def singular_values(matrix: Float[ArrayLike, "h w *batch"]) -> tuple[Float[Array, "*batch"], ...]:
    """Singular values of many small matrices.

    Rotates pairs of columns until all are orthogonal (Hestenes 1958; Demmel & Veselic 1992): their
    lengths are the singular values. A fixed number of sweeps, elementwise over the batch, so it
    lowers on every platform.

    The derivative is ``u' dA v``, also a valid one of the largest where it is multiple; 0 at a
    singular value of 0.

    Args:
        matrix: float32 ``(h, w, ...)``, with entries of the order of 1.

    Returns:
        ``min(h, w)`` arrays, float32 ``(...)``, in no particular order.
    """
    columns = _orthogonal_columns(_tall(jnp.asarray(matrix)))
    return tuple(_norm(column) for column in columns)


@singular_values.defjvp
def _singular_values_jvp(
    primals: tuple[Array], tangents: tuple[Array]
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    matrix, direction = _tall(primals[0]), _tall(tangents[0])
    columns = _orthogonal_columns(matrix)
    left = jnp.stack([_unit(jnp.stack(column)) for column in columns])
    right = contract("hw...,kh...->wk...", matrix, left)
    right = _unit(right)
    tangent = contract("hw...,kh...,wk...->k...", direction, left, right)
    return tuple(_norm(column) for column in columns), tuple(tangent)


def _tall(matrix: jax.Array) -> jax.Array:
    return matrix if matrix.shape[0] >= matrix.shape[1] else jnp.swapaxes(matrix, 0, 1)


def _dot(x: Column, y: Column) -> jax.Array:
    return reduce(add, (a * b for a, b in zip(x, y, strict=True)))


def _norm(column: Column) -> jax.Array:
    return jnp.sqrt(_dot(column, column))


def _unit(columns: jax.Array) -> jax.Array:
    """Columns ``(rows, ...)`` of length 1, or 0 where they are 0."""
    norms = jnp.sqrt(jnp.sum(columns**2, axis=0))
    return columns / jnp.where(norms > 0, norms, 1)[None]


def _orthogonal_columns(matrix: jax.Array) -> list[Column]:
    height, width = matrix.shape[:2]
    columns = [[matrix[i, j] for i in range(height)] for j in range(width)]
    if width <= 3:
        for _ in range({1: 0, 2: 1, 3: 4}[width]):
            columns = _sweep(columns)
        return columns

    def sweep(_: Array, columns: list[Column]) -> list[Column]:
        return _sweep(columns)

    # A loop, for the sake of compile time: one sweep has width * (width - 1) / 2 rotations.
    return typed_jax.fori_loop(0, 4 + width // 2, sweep, columns)


def _sweep(columns: list[Column]) -> list[Column]:
    columns = list(columns)
    for i in range(len(columns) - 1):
        for j in range(i + 1, len(columns)):
            columns[i], columns[j] = _orthogonalize(columns[i], columns[j])
    return columns


def _orthogonalize(x: Column, y: Column) -> tuple[Column, Column]:
    """Rotate two columns within their plane so that they are orthogonal."""
    product = 2 * _dot(x, y)
    difference = reduce(add, ((b - a) * (b + a) for a, b in zip(x, y, strict=True)))
    denominator = jnp.abs(difference) + jnp.sqrt(difference**2 + product**2)
    signed = jnp.where(difference < 0, -product, product)
    tangent = signed / jnp.where(denominator > 0, denominator, 1)
    cosine = jax.lax.rsqrt(1 + tangent * tangent)
    sine = cosine * tangent
    return (
        [cosine * a - sine * b for a, b in zip(x, y, strict=True)],
        [sine * a + cosine * b for a, b in zip(x, y, strict=True)],
    )
