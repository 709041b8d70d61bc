"""Eigenvalues of small real matrices by a fixed number of shifted QR steps, a batch at a time."""

import jax
import jax.numpy as jnp

from jnnk._core import typed_jax
from jnnk.pruning._linalg.adjugates import entry, reflected, reflection_of

_EPS = 2.0**-23
_STEPS_PER_EIGENVALUE = 6
_EXCEPTIONAL_EVERY = 7


def qr_eigenvalues(matrix: jax.Array) -> jax.Array:
    """Eigenvalues by Hessenberg reduction and complex QR steps with Wilkinson's shift.

    Golub & Van Loan, "Matrix Computations", 7.4-7.5. Every matrix takes the same steps: a row that
    has converged is rotated by the identity, so no matrix waits for or branches from another.

    Args:
        matrix: float32 ``(n, n, ...)``, n >= 2.

    Returns:
        complex64 ``(n, ...)``; NaN where a matrix has not converged.
    """
    size = matrix.shape[0]
    hessenberg = _hessenberg(matrix)
    norm = jnp.sqrt(jnp.sum(hessenberg**2, axis=(0, 1)))

    def step(i: jax.Array, h: jax.Array) -> jax.Array:
        return _qr_step(_deflate(h, norm), i % _EXCEPTIONAL_EVERY == _EXCEPTIONAL_EVERY - 1)

    start = hessenberg.astype(jnp.complex64)
    h = typed_jax.fori_loop(0, _STEPS_PER_EIGENVALUE * size, step, start)
    h = _deflate(h, norm)
    converged = jnp.all(jnp.stack([h[i + 1, i] for i in range(size - 1)]) == 0, axis=0)
    return jnp.where(converged[None], jnp.stack([h[i, i] for i in range(size)]), jnp.nan)


def _hessenberg(matrix: jax.Array) -> jax.Array:
    """Zeros below the first subdiagonal, by Householder reflections from both sides."""
    size = matrix.shape[0]
    if size == 2:
        return matrix

    def step(k: jax.Array, rows: jax.Array) -> jax.Array:
        reflection = reflection_of(entry(rows, k, axis=1), k + 1)
        rows = reflected(rows, reflection)
        return reflected(rows.swapaxes(0, 1), reflection).swapaxes(0, 1)

    matrix = typed_jax.fori_loop(0, size - 2, step, matrix)
    below = jnp.tri(size, k=-2, dtype=bool).reshape(size, size, *[1] * (matrix.ndim - 2))
    return jnp.where(below, 0, matrix)


def _deflate(h: jax.Array, norm: jax.Array) -> jax.Array:
    """Set to zero the subdiagonal entries that rounding cannot tell from zero."""
    for i in range(h.shape[0] - 1):
        local = jnp.abs(h[i, i]) + jnp.abs(h[i + 1, i + 1])
        negligible = jnp.abs(h[i + 1, i]) <= _EPS * jnp.maximum(local, 0.1 * norm)
        h = h.at[i + 1, i].set(jnp.where(negligible, 0, h[i + 1, i]))
    return h


def _qr_step(h: jax.Array, exceptional: jax.Array) -> jax.Array:
    """One QR step on each matrix, shifted by its last block that has not converged."""
    size = h.shape[0]
    a, b, c, d = h[0, 0], h[0, 1], h[1, 0], h[1, 1]
    for i in range(1, size - 1):
        active = h[i + 1, i] != 0
        block = h[i, i], h[i, i + 1], h[i + 1, i], h[i + 1, i + 1]
        a, b, c, d = (
            jnp.where(active, new, old) for new, old in zip(block, (a, b, c, d), strict=True)
        )
    half = (a - d) / 2
    root = jnp.sqrt(half * half + b * c)
    # The eigenvalue of the block nearest to d; an arbitrary shift now and then breaks cycles.
    nearest = jnp.where(jnp.abs(half + root) < jnp.abs(half - root), half + root, half - root)
    shift = d + jnp.where(exceptional, 0.75 * jnp.abs(c).astype(h.dtype), nearest)

    rows = [h[i].at[i].add(-shift) for i in range(size)]
    rotations: list[tuple[jax.Array, jax.Array]] = []
    for i in range(size - 1):
        top, bottom = rows[i][i], rows[i + 1][i]
        length = jnp.hypot(jnp.abs(top), jnp.abs(bottom))
        active = bottom != 0
        safe = jnp.where(active, length, 1).astype(h.dtype)
        c = jnp.where(active, top / safe, 1)
        s = jnp.where(active, bottom / safe, 0)
        rotations.append((c, s))
        rows[i], rows[i + 1] = (
            jnp.conj(c)[None] * rows[i] + jnp.conj(s)[None] * rows[i + 1],
            -s[None] * rows[i] + c[None] * rows[i + 1],
        )
    triangle = jnp.stack(rows)
    columns = [triangle[:, i] for i in range(size)]
    for i, (c, s) in enumerate(rotations):
        columns[i], columns[i + 1] = (
            c[None] * columns[i] + s[None] * columns[i + 1],
            -jnp.conj(s)[None] * columns[i] + jnp.conj(c)[None] * columns[i + 1],
        )
    product = jnp.stack(columns, axis=1)
    is_last = jnp.stack(
        [h[i, i - 1] == 0 if i else jnp.ones_like(h[0, 0], bool) for i in range(size)]
    )
    converged = jnp.flip(jnp.cumprod(jnp.flip(is_last.astype(jnp.int32), 0), axis=0), 0) > 0
    diagonal = [jnp.where(converged[i], h[i, i], product[i, i] + shift) for i in range(size)]
    for i in range(size):
        product = product.at[i, i].set(diagonal[i])
    return product
