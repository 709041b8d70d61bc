"""Balancing of many small matrices: a diagonal similarity that makes rows and columns alike.

Computed eigenvalues are those of a matrix nearby, within a few roundings of its norm.
``[[0, 1], [1e-14, 0]]`` has norm 1 and eigenvalues ``1e-7`` and ``-1e-7``; balanced, it has the
same eigenvalues and a norm near 1e-7 (Osborne 1960; Parlett & Reinsch 1969; LAPACK's gebal). The
factors are powers of two, found by integer arithmetic on the exponents of the entries, so nothing
is rounded.
"""

from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jnnk._core import typed_jax

_BELOW_ALL = -(2**20)  # stands for the exponent of 0
_MANTISSA_BITS = 23


class Balanced(NamedTuple):
    """Matrices ``A = 2 ** scale * D B D^-1`` with ``D = diag(2 ** exponents)``.

    Attributes:
        matrix: ``B``, float32 ``(n, n, ...)``, its largest entry between 1 and 2 (0 for zero).
        exponents: int32 ``(n, ...)``.
        scale: int32 ``(...)``.
    """

    matrix: jax.Array
    exponents: jax.Array
    scale: jax.Array


def balance(matrix: jax.Array) -> Balanced:
    """Makes the largest off-diagonal entries of row and column ``i`` alike, for every ``i``.

    To within a factor of 8, by ``4 n`` sweeps. A row or column that is zero off the diagonal has
    nothing to be balanced against and is left as it is.

    Args:
        matrix: float32 ``(n, n, ...)``; entries below the normal range count as 0.

    Returns:
        The balanced matrices; entries that are not finite stay so.
    """
    size = matrix.shape[0]
    rows = [[exponent_of(matrix[i, j]) for j in range(size)] for i in range(size)]

    def sweep(_: jax.Array, exponents: list[jax.Array]) -> list[jax.Array]:
        return _sweep(rows, exponents)

    balancing = [jnp.zeros_like(rows[0][0])] * size
    if size > 1:  # a loop, for the sake of compile time
        balancing = typed_jax.fori_loop(0, 4 * size, sweep, balancing)
    exponents = jnp.stack(balancing)
    sizes = jnp.stack([jnp.stack(row) for row in rows])
    shifts = exponents[None] - exponents[:, None]
    scale = jnp.max(sizes + shifts, axis=(0, 1))
    scale = jnp.where(scale > _BELOW_ALL // 2, scale, 0)
    return Balanced(times_power_of_two(matrix, shifts - scale[None, None]), exponents, scale)


def scaled(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Brings entries near 1, and balances all matrices if any has entries 2 ** 40 apart.

    For methods that compute with products along cycles of entries, which a diagonal similarity
    leaves alone but for their range.

    Args:
        matrix: float32 ``(n, n, ...)``.

    Returns:
        Matrices ``(n, n, ...)`` with entries less than 2, and the exponents int32 ``(...)`` of the
        powers of two that their eigenvalues are to be multiplied by.
    """
    entries = [x for row in matrix for x in row]
    bits = [jax.lax.bitcast_convert_type(x, jnp.int32) & 0x7FFFFFFF for x in entries]
    largest = reduce(jnp.maximum, bits)
    is_zero = [x < 1 << _MANTISSA_BITS for x in bits]
    smallest = reduce(
        jnp.minimum, [jnp.where(z, largest, x) for z, x in zip(is_zero, bits, strict=True)]
    )

    def by_largest(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
        scale = jnp.clip((largest >> _MANTISSA_BITS) - 127, -126, 126)
        return matrix * power_of_two(-scale)[None, None], scale

    def by_rows_and_columns(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
        matrix, _, scale = balance(matrix)
        return matrix, scale

    is_wide = jnp.any(largest - smallest > 40 << _MANTISSA_BITS)
    return typed_jax.cond(is_wide, by_rows_and_columns, by_largest, matrix)


def without_couplings(matrix: jax.Array) -> jax.Array:
    """Sets entries that lie on no cycle to zero: they are in no eigenvalue.

    What LAPACK's gebal does by permutations, for every block triangular structure: entry ``(i, j)``
    stays if a path of other entries leads from ``j`` to ``i``.

    Args:
        matrix: float32 ``(n, n, ...)``.

    Returns:
        float32 ``(n, n, ...)``, with the same eigenvalues.
    """
    reaches = matrix != 0
    for k in range(matrix.shape[0]):
        reaches = reaches | (reaches[:, k, None] & reaches[None, k])
    size = matrix.shape[0]
    diagonal = jnp.eye(size, dtype=bool).reshape(size, size, *[1] * (matrix.ndim - 2))
    return jnp.where(diagonal | reaches.swapaxes(0, 1), matrix, 0)


def exponent_of(x: jax.Array) -> jax.Array:
    """``floor(log2(|x|))`` of float32 as int32; ``-2 ** 20`` for 0 and below the normal range."""
    field = (jax.lax.bitcast_convert_type(x, jnp.int32) >> _MANTISSA_BITS) & 0xFF
    return jnp.where(field > 0, field - 127, _BELOW_ALL)


def power_of_two(exponent: jax.Array) -> jax.Array:
    """``2 ** exponent`` in float32, for int32 from -126 to 127."""
    return jax.lax.bitcast_convert_type((exponent + 127) << _MANTISSA_BITS, jnp.float32)


def times_power_of_two(x: jax.Array, exponent: jax.Array) -> jax.Array:
    """``x * 2 ** exponent``, for any int32 exponents; they are clipped to -252 and 252."""
    exponent = jnp.clip(exponent, -252, 252)
    half = exponent >> 1
    return x * power_of_two(half) * power_of_two(exponent - half)


def _sweep(sizes: list[list[jax.Array]], exponents: list[jax.Array]) -> list[jax.Array]:
    exponents = list(exponents)
    for i, own in enumerate(exponents):
        others = [j for j in range(len(exponents)) if j != i]
        row = reduce(jnp.maximum, [sizes[i][j] + exponents[j] for j in others]) - own
        column = reduce(jnp.maximum, [sizes[j][i] - exponents[j] for j in others]) + own
        is_coupled = jnp.minimum(row, column) > _BELOW_ALL // 2
        exponents[i] = own + jnp.where(is_coupled, (row - column) >> 1, 0)
    return exponents
