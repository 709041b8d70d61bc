"""Products and sums over candidates that all of the first phase is made of.

Problems lie along the last axis: vectors are (K, B).
"""

import jax
import jax.numpy as jnp

from jnnk._core.precision import contract


def product(gram: jax.Array, vectors: jax.Array) -> jax.Array:
    """``G w`` for gram (B, K, K) and vectors (K, B)."""
    return contract("bij,jb->ib", gram, vectors)


def total_of(vectors: jax.Array) -> jax.Array:
    """The sum (B,) over the entries of vectors (K, B).

    As a product with ones: XLA's reductions take twice the time of it on a CPU, and threads that
    two programs at once then share.
    """
    ones = jnp.ones(len(vectors), vectors.dtype)
    return jnp.matmul(ones, vectors, precision=jax.lax.Precision.HIGHEST)


def is_nontrivial(cross: jax.Array) -> jax.Array:
    """Which problems (B,) have a cross (K, B) that is not 0: the solution of the others is 0."""
    return jnp.any(cross != 0, axis=0)
