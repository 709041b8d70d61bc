"""Problems in units of their own: candidates by their diagonal, all by the largest cross entry.

The factors are powers of two, so that nothing is rounded and a problem of unit diagonal stays as it
is.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jnnk._core import typed_jax


class Posed(NamedTuple):
    """B problems in K candidates, in units of their own.

    A candidate whose diagonal entry is not positive has become a problem of its own whose answer is
    0.

    Attributes:
        gram: (B, K, K), diagonal between 1/2 and 2.
        cross: (B, K), below 4, the largest in size at least 1/2 unless all are 0.
        scale: (B, K), what a weight is multiplied by to be in the caller's units, but for ``unit``.
        unit: (B, 2), two factors of all weights and of the residual, whose product may overflow.
        bounded: bool (B,), False where the objective has no minimum: a diagonal entry is negative,
            or zero where ``cross`` is positive.
    """

    gram: jax.Array
    cross: jax.Array
    scale: jax.Array
    unit: jax.Array
    bounded: jax.Array


def pose(gram: jax.Array, cross: jax.Array) -> Posed:
    """Problems (B, K, K) and (B, K), as they came, in units of their own."""
    dtype, size = cross.dtype, cross.shape[1]
    smallest = typed_jax.finfo(dtype).tiny
    diagonal = typed_jax.diagonals(gram)
    usable = diagonal >= smallest
    bounded = ~jnp.any((diagonal < 0) | (~usable & (cross > 0)), axis=1)
    scale = jnp.where(usable, nearest_power(1 / jnp.sqrt(jnp.where(usable, diagonal, 1))), 1)
    cross = jnp.where(usable, cross, 0)
    # First so that no product overflows, then to a size near 1.
    first = _size_of(cross)
    cross = cross / first[:, None] * scale
    second = _size_of(cross)
    cross = cross / second[:, None]

    gram = gram * scale[:, :, None] * scale[:, None, :]
    both = usable[:, :, None] & usable[:, None, :]
    gram = jnp.where(both, gram, jnp.eye(size, dtype=dtype))
    return Posed(gram, cross, scale, jnp.stack([first, second], 1), bounded)


def nearest_power(numbers: jax.Array) -> jax.Array:
    """The powers of two nearest to positive numbers."""
    exponent = typed_jax.finfo(numbers.dtype).nexp
    return jax.lax.reduce_precision(numbers, exponent_bits=exponent, mantissa_bits=0)


def _size_of(cross: jax.Array) -> jax.Array:
    """A power of two (B,) near the largest entry of each row in size, 1 where all are 0."""
    half = jnp.max(jnp.abs(cross), axis=1) / 2
    smallest = typed_jax.finfo(cross.dtype).tiny
    some = half >= smallest
    # At most what has a normal number as its inverse.
    size = jnp.minimum(nearest_power(jnp.where(some, half, 1)), 1 / smallest)
    return jnp.where(some, size, 1)
