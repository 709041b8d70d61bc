"""Adjugates of many small matrices at once, which are the derivatives of determinants.

``d det(M) = tr(adj(M) dM)`` for singular matrices too, where ``adj(M) = det(M) M^-1`` does not
help. With ``M = QR`` it is ``det(Q) adj(R) Q^H``, and the adjugate of a triangular matrix takes
products and sums alone: the error is a few roundings of ``|M| ** (n - 1)``.
"""

from functools import reduce
from operator import add, mul
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp


class Reflections(NamedTuple):
    """``I - factor v v^H``, one after the other along the first axis.

    Attributes:
        vectors: ``v``, ``(k, m, ...)``.
        factors: real ``(k, ...)``; 0 for the identity.
    """

    vectors: jax.Array
    factors: jax.Array


class Triangular(NamedTuple):
    """``M = Q R`` by Householder reflections.

    Attributes:
        upper: ``R``, ``(n, n, ...)``, zero below the diagonal.
        reflections: whose product, the first one rightmost, is ``Q^H``.
        sign: the determinant of ``Q``, real ``(...)``.
    """

    upper: jax.Array
    reflections: Reflections
    sign: jax.Array

    def rotated(self, others: jax.Array) -> jax.Array:
        """The first ``n`` rows of ``Q^H Y``, ``(n, p, ...)``, for ``Y`` of ``(m, p, ...)``."""
        rows, _ = jax.lax.scan(lambda y, h: (reflected(y, h), None), others, self.reflections)
        return rows[: len(self.upper)]


def triangular(matrix: jax.Array) -> Triangular:
    """Triangular factors of matrices ``(m, n, ...)`` with m >= n, float32 or complex64."""
    height, width = matrix.shape[:2]

    def step(rows: jax.Array, k: jax.Array) -> tuple[jax.Array, Reflections]:
        column = entry(rows, k, axis=1)
        reflection = reflection_of(column, k)
        return reflected(rows, reflection), reflection

    count = min(width, height - 1)
    rows, reflections = jax.lax.scan(step, matrix, jnp.arange(count, dtype=jnp.int32))
    signs = jnp.where(reflections.factors > 0, -1, 1).astype(reflections.factors.dtype)
    below = jnp.tri(width, k=-1, dtype=bool).reshape(width, width, *[1] * (matrix.ndim - 2))
    return Triangular(jnp.where(below, 0, rows[:width]), reflections, jnp.prod(signs, axis=0))


def reflection_of(column: jax.Array, k: jax.Array) -> Reflections:
    """The Householder reflection that makes a column ``(m, ...)`` zero after entry ``k``."""
    places = jnp.arange(len(column), dtype=jnp.int32).reshape(-1, *[1] * (column.ndim - 1))
    first = entry(column, k, axis=0)
    column = jnp.where(places < k, 0, column)
    length = jnp.sqrt(_total(jnp.square(jnp.abs(column))))
    size = jnp.abs(first)
    phase = jnp.where(size > 0, first / jnp.where(size > 0, size, 1).astype(first.dtype), 1)
    # Away from zero, so that nothing cancels. |v|^2 = 2 |x| (|x| + |x_k|).
    vector = column + jnp.where(places == k, (phase * length.astype(first.dtype))[None], 0)
    half_square = length * (length + size)
    is_needed = half_square > 0
    factor = jnp.where(is_needed, 1 / jnp.where(is_needed, half_square, 1), 0)
    return Reflections(vector, factor)


def entry(array: jax.Array, k: jax.Array, *, axis: int) -> jax.Array:
    """Entry ``k`` along an axis, which the result has no more."""
    return cast(jax.Array, jax.lax.dynamic_index_in_dim(array, k, axis=axis, keepdims=False))


def reflected(rows: jax.Array, reflection: Reflections) -> jax.Array:
    """Rows ``(m, p, ...)`` by one reflection, from the left."""
    vector, factor = reflection
    along = _total(jnp.conj(vector)[:, None] * rows) * factor.astype(rows.dtype)[None]
    return rows - vector[:, None] * along[None]


def _total(terms: jax.Array) -> jax.Array:
    """Sum over the first axis; on CPU jnp.sum is slow there, and wrong at times (jaxlib 0.10.2)."""
    return reduce(add, list(terms))


def adjugate_of_triangular(upper: jax.Array) -> jax.Array:
    """Adjugate of upper triangular matrices ``(n, n, ...)``, upper triangular itself.

    As in back substitution, with the divisions by the diagonal put off and cancelled.
    """
    size = upper.shape[0]
    identity = jnp.eye(size, dtype=upper.dtype).reshape(size, size, *[1] * (upper.ndim - 2))
    identity = jnp.broadcast_to(identity, upper.shape)
    # before[i]: the product of the diagonal before entry i; after[j]: after entry j.
    before, after = [jnp.ones_like(upper[0, 0])], [jnp.ones_like(upper[0, 0])]
    for i in range(size - 1):
        before.append(before[-1] * upper[i, i])
        after.append(after[-1] * upper[size - 1 - i, size - 1 - i])
    columns: list[jax.Array] = []  # the cofactors without the diagonal outside i..j
    for j in range(size):
        column, between = identity[:, j], jnp.ones_like(upper[0, 0])
        for k in range(j - 1, -1, -1):
            column = column - columns[k] * (upper[k, j] * between)[None]
            between = between * upper[k, k]
        columns.append(column)
    outside = jnp.stack(before)[:, None] * jnp.stack(after[::-1])[None]
    return jnp.stack(columns, axis=1) * outside


def product_of_diagonal(matrix: jax.Array) -> jax.Array:
    """Of matrices ``(n, n, ...)``; shape ``(...)``."""
    return reduce(mul, [matrix[i, i] for i in range(len(matrix))])


def trace_of_product(a: jax.Array, b: jax.Array) -> jax.Array:
    """``tr(A B)`` of matrices ``(n, n, ...)``; shape ``(...)``."""
    return _total(_total(a * b.swapaxes(0, 1)))
