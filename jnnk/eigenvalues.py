"""Stopgap."""

import jax.numpy as jnp


def safe_sqrt(x):
    """Sqrt."""
    return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1)), 0)


def _m(a):
    return jnp.moveaxis(a, (0, 1), (-2, -1))


def determinant(a):
    """Det."""
    return jnp.linalg.det(_m(a))


def eigenvalues(a):
    """Eig."""
    e = jnp.moveaxis(jnp.linalg.eigvals(_m(a)), -1, 0)
    return e.real, e.imag


def singular_values(a):
    """Sv."""
    return jnp.moveaxis(jnp.linalg.svd(_m(a), compute_uv=False), -1, 0)
