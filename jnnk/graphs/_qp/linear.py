"""Linear systems restricted to supports, in a batch, without LAPACK.

LAPACK calls of two XLA programs that run at once on the CPU can deadlock (JAX 0.10.2), and
elimination in plain operations runs on every backend.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jnnk._core import typed_jax


def eliminate(gram: jax.Array, right: jax.Array, support: jax.Array) -> jax.Array:
    """Solves ``G_SS x_S = r_S``, ``x = 0`` off the support, by Gauss-Jordan elimination.

    A candidate that depends on those before it (pivot at most ``4 eps`` of its diagonal entry: a
    duplicate, say) is left out of the system and gets 0.

    Args:
        gram: (B, K, K) symmetric positive semi-definite.
        right: (B, K).
        support: bool (B, K).

    Returns:
        (B, K).
    """
    size, dtype = right.shape[1], right.dtype
    both = support[:, :, None] & support[:, None, :]
    table = jnp.where(both, gram, jnp.eye(size, dtype=dtype))
    diagonal = typed_jax.diagonals(table)
    smallest = 4 * typed_jax.finfo(dtype).eps * diagonal
    table = jnp.concatenate([table, jnp.where(support, right, 0)[:, :, None]], axis=2)

    def step(k: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        table, kept = carry
        row, pivot = table[:, k], table[:, k, k]
        fine = pivot > smallest[:, k]
        row = jnp.where(fine[:, None], row / jnp.where(fine, pivot, 1)[:, None], 0)
        table = table - table[:, :, k, None] * row[:, None, :]
        return table.at[:, k].set(row), kept.at[:, k].set(fine)

    table, kept = typed_jax.fori_loop(0, size, step, (table, support))
    return jnp.where(support & kept, table[:, :, size], 0)


def solve_on_support(gram: jax.Array, right: jax.Array, support: jax.Array) -> jax.Array:
    """`eliminate` as a linear map of ``right`` that both modes of differentiation pass through."""

    def product(x: jax.Array) -> jax.Array:
        inside = jnp.where(support, x, 0)
        applied = jnp.einsum("bij,bj->bi", gram, inside, precision=jax.lax.Precision.HIGHEST)
        return jnp.where(support, applied, x)

    def solve(_: Callable[[jax.Array], jax.Array], r: jax.Array) -> jax.Array:
        def refined(_: jax.Array, x: jax.Array) -> jax.Array:
            return x + eliminate(gram, r - product(x), support)

        # One step of refinement: elimination without pivoting loses a few digits.
        return typed_jax.fori_loop(0, 2, refined, jnp.zeros_like(r))

    right = jnp.where(support, right, 0)
    return jax.lax.custom_linear_solve(product, right, solve, symmetric=True)
