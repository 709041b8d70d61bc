"""Adjugates of many small matrices at once, which are the derivatives of determinants.

``d det(M) = tr(adj(M) dM)`` for singular matrices too, where ``adj(M) = det(M) M^-1`` does not
help. With ``M = QR`` it is ``det(Q) adj(R) Q^H``, and the adjugate of a triangular matrix takes
products and sums alone: the error is a few roundings of ``|M| ** (n - 1)``.
"""

from functools import reduce
from operator import add, mul
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Reflection(NamedTuple):
    """``I - factor v v^H``, where ``v`` is zero before entry ``m - len(vector)``.

    Attributes:
        vector: the other entries of ``v``, each ``(...)``.
        factor: real ``(...)``; 0 for the identity.
    """

    vector: list[jax.Array]
    factor: jax.Array

    def of(self, rows: list[jax.Array]) -> list[jax.Array]:
        """Applied to ``m`` rows ``(p, ...)``."""
        start = len(rows) - len(self.vector)
        terms = [jnp.conj(v)[None] * row for v, row in zip(self.vector, rows[start:], strict=True)]
        along = self.factor.astype(rows[0].dtype)[None] * reduce(add, terms)
        changed = [row - v[None] * along for v, row in zip(self.vector, rows[start:], strict=True)]
        return rows[:start] + changed


class Triangular(NamedTuple):
    """``M = Q R`` by Householder reflections.

    Attributes:
        upper: ``R``, ``(n, n, ...)``, zero below the diagonal.
        reflections: whose product, the first one rightmost, is ``Q^H``.
        sign: the determinant of ``Q``, real ``(...)``.
    """

    upper: jax.Array
    reflections: list[Reflection]
    sign: jax.Array

    def rotated(self, others: jax.Array) -> jax.Array:
        """The first ``n`` rows of ``Q^H Y``, ``(n, p, ...)``, for ``Y`` of ``(m, p, ...)``."""
        rows = list(others)
        for reflection in self.reflections:
            rows = reflection.of(rows)
        return jnp.stack(rows[: len(self.upper)])


def triangular(matrix: jax.Array) -> Triangular:
    """Triangular factors of matrices ``(m, n, ...)`` with m >= n, float32 or complex64."""
    height, width = matrix.shape[:2]
    rows, reflections = list(matrix), []
    sign = jnp.ones(matrix.shape[2:], matrix.real.dtype)
    for k in range(min(width, height - 1)):
        column = [row[k] for row in rows[k:]]
        length = jnp.sqrt(reduce(add, [jnp.square(jnp.abs(x)) for x in column]))
        first = jnp.abs(column[0])
        phase = column[0] / jnp.where(first > 0, first, 1).astype(matrix.dtype)
        phase = jnp.where(first > 0, phase, 1)
        # Away from zero, so that nothing cancels. |v|^2 = 2 |x| (|x| + |x_1|).
        half_square = length * (length + first)
        is_needed = half_square > 0
        factor = jnp.where(is_needed, 1 / jnp.where(is_needed, half_square, 1), 0)
        sign = jnp.where(is_needed, -sign, sign)
        head = column[0] + phase * length.astype(matrix.dtype)
        reflections.append(Reflection([head, *column[1:]], factor))
        rows = reflections[-1].of(rows)
    below = jnp.tri(width, k=-1, dtype=bool).reshape(width, width, *[1] * (matrix.ndim - 2))
    return Triangular(jnp.where(below, 0, jnp.stack(rows[:width])), reflections, sign)


def adjugate_of_triangular(upper: jax.Array) -> jax.Array:
    """Adjugate of upper triangular matrices ``(n, n, ...)``, upper triangular itself.

    As in back substitution, with the divisions by the diagonal put off and cancelled.
    """
    size = upper.shape[0]
    one, zero = jnp.ones_like(upper[0, 0]), jnp.zeros_like(upper[0, 0])
    diagonal = [upper[i, i] for i in range(size)]

    def product(start: int, stop: int) -> jax.Array:
        return reduce(mul, diagonal[start:stop], one)

    def row(i: int) -> jax.Array:
        # Entry j, times the diagonal outside i..j, is the cofactor.
        parts = [one]
        for j in range(i + 1, size):
            terms = [parts[k - i] * upper[k, j] * product(k + 1, j) for k in range(i, j)]
            parts.append(-reduce(add, terms))
        outside = [product(0, i) * product(j + 1, size) for j in range(i, size)]
        return jnp.stack([zero] * i + [a * b for a, b in zip(parts, outside, strict=True)])

    return jnp.stack([row(i) for i in range(size)])


def product_of_diagonal(matrix: jax.Array) -> jax.Array:
    """Of matrices ``(n, n, ...)``; shape ``(...)``."""
    return reduce(mul, [matrix[i, i] for i in range(len(matrix))])


def trace_of_product(a: jax.Array, b: jax.Array) -> jax.Array:
    """``tr(A B)`` of matrices ``(n, n, ...)``; shape ``(...)``."""
    return jnp.sum(a * b.swapaxes(0, 1), axis=(0, 1))
