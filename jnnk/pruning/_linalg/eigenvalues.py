"""Eigenvalues and determinants of many small matrices at once.

Matrices lie along the first two axes, ``(n, n, ...)``: every entry is then one long vector over the
batch, and everything is elementwise arithmetic that lowers on CPU, GPU and TPU alike (a
nonsymmetric eigensolver does not lower on TPU). float32 throughout.

The eigenvalues of a matrix come as separate arrays: XLA on CPU recomputes everything upstream of a
stack for each of its parts. They are in closed form up to 3x3 and from a fixed number of shifted
QR steps beyond.
"""

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jnnk._core.arrays import ArrayLike
from jnnk._core.double_float import DoubleFloat, exact_product, exact_sum
from jnnk._core.precision import contract
from jnnk.pruning._linalg.adjugates import (
    adjugate_of_triangular,
    product_of_diagonal,
    trace_of_product,
    triangular,
)
from jnnk.pruning._linalg.balancing import (
    balance,
    exponent_of,
    power_of_two,
    scaled,
    times_power_of_two,
    without_couplings,
)
from jnnk.pruning._linalg.qr_algorithm import qr_eigenvalues

_SMALLEST_SLOPE_SQUARED = 1e-14

#: The entries of matrices by row and column, each of them ``(...)``.
Entries = Array | Mapping[tuple[int, int], Array]


class Eigenvalues(NamedTuple):
    """The ``n`` eigenvalues of matrices ``(n, n, ...)``, in no particular order.

    Attributes:
        real: ``n`` arrays, float32 ``(...)``.
        imag: ``n`` arrays, float32 ``(...)``.
    """

    real: tuple[Float[Array, "*batch"], ...]
    imag: tuple[Float[Array, "*batch"], ...]


@jax.custom_jvp
def eigenvalues(matrix: Float[ArrayLike, "n n *batch"]) -> Eigenvalues:
    """Eigenvalues of many small real square matrices.

    The error is a few 1e-7 of the Frobenius norm up to 3x3, for defective matrices too if few bits
    hold their entries; a triple eigenvalue of full-length entries is found to 2e-5. Beyond 3x3 the
    method is backward stable: an m-fold defective eigenvalue is found to about
    ``1e-7 ** (1 / m)``. The norm meant is that of the balanced matrix (`balancing`), which has
    the same eigenvalues and may be smaller by orders of magnitude.

    The derivative of an eigenvalue ``z`` is ``tr(adj(zI - A) dA) / p'(z)``, with ``p`` the
    characteristic polynomial; where ``p'(z)`` vanishes (a multiple eigenvalue, whose derivative
    does not exist) it is finite and goes to 0.

    Args:
        matrix: float32 ``(n, n, ...)``.

    Returns:
        The eigenvalues; NaN where the entries are not finite or the QR steps have not converged.

    Raises:
        ValueError: if the matrices are not square.
    """
    matrix = _square(matrix)
    size = matrix.shape[0]
    if size == 1:
        return Eigenvalues((matrix[0, 0],), (jnp.zeros_like(matrix[0, 0]),))
    if size <= 3:
        matrix, scale = scaled(matrix)
        values = _eigenvalues_2x2(matrix) if size == 2 else _eigenvalues_3x3(matrix)
    else:
        matrix, _, scale = balance(without_couplings(matrix))
        roots = qr_eigenvalues(matrix)
        values = Eigenvalues(tuple(roots.real), tuple(roots.imag))
    real, imag = (tuple(times_power_of_two(x, scale) for x in part) for part in values)
    return Eigenvalues(real, imag)


@eigenvalues.defjvp
def _eigenvalues_jvp(
    primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Eigenvalues, Eigenvalues]:
    (matrix,), (direction,) = primals, tangents
    values = eigenvalues(matrix)
    size = matrix.shape[0]
    if size == 1:
        return values, Eigenvalues((direction[0, 0],), (jnp.zeros_like(direction[0, 0]),))
    matrix, exponents, scale = balance(matrix)
    # Of the balanced matrix. A slope of more than 2 ** 60 between the two is cut to that.
    shifts = jnp.clip(exponents[None] - exponents[:, None], -60, 60)
    direction = direction * power_of_two(shifts)
    real, imag = (times_power_of_two(jnp.stack(parts), -scale[None]) for parts in values)
    # One matrix zI - A for each eigenvalue, along a new third axis.
    identity = jnp.eye(size, dtype=matrix.dtype).reshape(size, size, *[1] * (matrix.ndim - 1))
    shifted = jax.lax.complex(
        identity * real[None, None] - matrix[:, :, None], identity * imag[None, None]
    )
    identity, direction = (
        jnp.broadcast_to(x, shifted.shape).astype(shifted.dtype)
        for x in (identity, direction[:, :, None])
    )
    factors = triangular(shifted)
    adjugate = adjugate_of_triangular(factors.upper)
    slope = trace_of_product(adjugate, factors.rotated(identity))
    change = trace_of_product(adjugate, factors.rotated(direction))
    quotient = (
        change
        * jnp.conj(slope)
        / (jnp.square(jnp.abs(slope)) + _SMALLEST_SLOPE_SQUARED).astype(slope.dtype)
    )
    return values, Eigenvalues(tuple(quotient.real), tuple(quotient.imag))


@jax.custom_jvp
def determinant(matrix: Float[ArrayLike, "n n *batch"]) -> Float[Array, "*batch"]:
    """Determinants of many small real square matrices.

    Args:
        matrix: float32 ``(n, n, ...)``, with entries of the order of 1.

    Returns:
        float32 ``(...)``. Up to 3x3 the error is about 1e-13 of the product of the rows' norms, so
        a determinant far below that product still has correct digits; beyond, about 1e-7 of it.

    Raises:
        ValueError: if the matrices are not square.
    """
    matrix = _square(matrix)
    if len(matrix) <= 3:
        return _closed_determinant(matrix, len(matrix))
    factors = triangular(matrix)
    return factors.sign * product_of_diagonal(factors.upper)


@determinant.defjvp
def _determinant_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    factors = triangular(primals[0])
    change = trace_of_product(adjugate_of_triangular(factors.upper), factors.rotated(tangents[0]))
    return determinant(primals[0]), factors.sign * change


@jax.custom_jvp
def gram_determinant(matrix: Float[ArrayLike, "m n *batch"]) -> Float[Array, "*batch"]:
    """Absolute determinants of ``A'A`` of many small matrices, ``A'A`` rounded to float32 before.

    A determinant below about 1e-7 of the product of the diagonal of ``A'A`` is therefore noise. So
    that it is the same noise as that of float32 BLAS on today's processors, and on every platform,
    an entry of ``A'A`` is a chain of fused multiply-adds from the first row on (up to 3x3).

    Args:
        matrix: float32 ``(m, n, ...)``.

    Returns:
        float32 ``(...)``.
    """
    matrix = jnp.asarray(matrix)
    size = matrix.shape[1]
    if size > 3:
        return jnp.abs(determinant(contract("ki...,kj...->ij...", matrix, matrix)))
    entries: dict[tuple[int, int], Array] = {}
    for i, j in itertools.combinations_with_replacement(range(size), 2):
        total = jnp.zeros_like(matrix[0, 0])
        for row in matrix:
            total = (exact_product(row[i], row[j]) + total).hi
        entries[i, j] = entries[j, i] = total
    return jnp.abs(_closed_determinant(entries, size))


@gram_determinant.defjvp
def _gram_determinant_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # det(A'A) = det(R)^2, which the rounding of A'A does not enter.
    factors = triangular(primals[0])
    change = trace_of_product(adjugate_of_triangular(factors.upper), factors.rotated(tangents[0]))
    return gram_determinant(primals[0]), 2 * product_of_diagonal(factors.upper) * change


def _square(matrix: ArrayLike) -> Array:
    """Matrices ``(n, n, ...)``, checked to be such."""
    if matrix.ndim < 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"matrix: expected shape (n, n, ...), got {matrix.shape}")
    return jnp.asarray(matrix)


def _closed_determinant(entries: Entries, size: int) -> Array:
    """Determinant of up to 3x3 entries."""
    if size == 1:
        return entries[0, 0]
    if size == 2:
        return _minor(entries, 0, 1, 0, 1).hi
    first, second, third = (
        _minor(entries, 1, 2, (i + 1) % 3, (i + 2) % 3) * entries[0, i] for i in range(3)
    )
    return (first + second + third).hi


def _minor(a: Entries, i: int, j: int, k: int, m: int) -> DoubleFloat:
    """Determinant of rows ``i, j`` and columns ``k, m``."""
    return exact_product(a[i, k], a[j, m]) - exact_product(a[i, m], a[j, k])


def _eigenvalues_2x2(a: jax.Array) -> Eigenvalues:
    """The roots of the characteristic polynomial, with its discriminant to full precision."""
    difference = exact_sum(a[0, 0], -a[1, 1])
    discriminant = (difference * difference + exact_product(a[0, 1], a[1, 0]).scaled(4.0)).hi
    half = 0.5 * (a[0, 0] + a[1, 1])
    root = 0.5 * jnp.sqrt(jnp.abs(discriminant))
    spread = jnp.where(discriminant > 0, root, 0)
    imag = jnp.where(discriminant > 0, 0, root)
    return Eigenvalues((half + spread, half - spread), (imag, -imag))


def _eigenvalues_3x3(a: jax.Array) -> Eigenvalues:
    """The roots of the characteristic polynomial, by a depressed cubic with roots near 1."""
    cubic = _depressed_cubic(a)
    # Without the barrier XLA fuses this with what follows, which JAX 0.11 compiles for a minute.
    p, q, trace = jax.lax.optimization_barrier(cubic)

    # p and q may cancel, and p^3 and q^2 leave the range: bring the roots near 1.
    exponent = _exponent_of_roots(p.hi, q.hi)
    shrink = power_of_two(-exponent)
    p = p.scaled(shrink).scaled(shrink)
    q = q.scaled(shrink).scaled(shrink).scaled(shrink)
    roots = _depressed_cubic_roots(p.hi, q.hi, _discriminant(p, q))

    grow = power_of_two(exponent)
    return Eigenvalues(
        tuple((real * grow + trace.hi) / 3 for real in roots.real),
        tuple(imag * grow / 3 for imag in roots.imag),
    )


class _DepressedCubic(NamedTuple):
    """The cubic ``m^3 - p m - q`` with a root ``m = 3z - trace`` for each eigenvalue ``z``."""

    p: DoubleFloat
    q: DoubleFloat
    trace: DoubleFloat


def _depressed_cubic(a: jax.Array) -> _DepressedCubic:
    """The characteristic polynomial of ``B = 3A - tr(A) I``, whose trace is 0.

    All entries of B are exact, so multiple eigenvalues stay multiple. With ``b`` its diagonal,

        p = b2^2 - b0 b1 + 9 (a12 a21 + a02 a20 + a01 a10)
        q = b0 b1 b2 + 9 (3 (a01 a12 a20 + a02 a10 a21)
                          - (b0 a12 a21 + b1 a02 a20 + b2 a01 a10)).
    """
    trace = exact_sum(a[0, 0], a[1, 1]) + a[2, 2]
    b = [exact_sum(2 * a[i, i], a[i, i]) - trace for i in range(3)]
    opposite = [
        exact_product(a[1, 2], a[2, 1]),
        exact_product(a[0, 2], a[2, 0]),
        exact_product(a[0, 1], a[1, 0]),
    ]
    first_two = b[0] * b[1]
    p = b[2] * b[2] - first_two + _nine_times(opposite[0] + opposite[1] + opposite[2])
    cycles = exact_product(a[0, 1], a[1, 2]) * a[2, 0] + exact_product(a[0, 2], a[1, 0]) * a[2, 1]
    mixed = b[0] * opposite[0] + b[1] * opposite[1] + b[2] * opposite[2]
    q = first_two * b[2] + _nine_times(_thrice(cycles) - mixed)
    return _DepressedCubic(p, q, trace)


def _thrice(x: DoubleFloat) -> DoubleFloat:
    return x.scaled(2.0) + x


def _nine_times(x: DoubleFloat) -> DoubleFloat:
    return x.scaled(8.0) + x


def _exponent_of_roots(p: jax.Array, q: jax.Array) -> jax.Array:
    """Exponent of a power of two near the larger of ``sqrt(p)`` and ``cbrt(q)``, -63 or more."""
    # The exponent of q divided by 3, rounded down: 21846 / 2 ** 16 is a third.
    third = (((jnp.maximum(exponent_of(q), -381) + 384) * 21846) >> 16) - 128
    return jnp.maximum(jnp.maximum(exponent_of(p) >> 1, third), -63)


def _discriminant(p: DoubleFloat, q: DoubleFloat) -> jax.Array:
    """``p^3 / 27 - q^2 / 4``, positive where all roots of ``m^3 - p m - q`` are real."""
    difference = (p * p * p).scaled(4.0) - _nine_times(_thrice(q * q))
    return difference.hi / 108


def _depressed_cubic_roots(p: jax.Array, q: jax.Array, discriminant: jax.Array) -> Eigenvalues:
    """Roots of ``m^3 - p m - q``, given ``p^3 / 27 - q^2 / 4`` to full relative precision."""
    root = jnp.sqrt(jnp.abs(discriminant))
    # Three real roots: Viete's cosines.
    radius = 2 * jnp.sqrt(jnp.maximum(p, 0) / 3)
    angle = jnp.arctan2(root, q / 2) / 3
    cosine, sine = _cosine_and_sine(angle)
    half_cosine = 0.5 * radius * cosine
    half_width = 0.75**0.5 * radius * sine
    # One real root and a pair: Cardano's u + v and -(u + v) / 2 +- i sqrt(3) / 2 (u - v), with q
    # made positive. Of the sum and the difference the one that cancels is taken from the other:
    # u + v = |q| / (u^2 + |u v| + v^2) for v < 0, u - v = 2 root / (the same) for v > 0.
    u = _cube_root(jnp.abs(q) / 2 + root)
    v = p / 3 / jnp.where(u > 0, u, 1)
    size = u * u + jnp.abs(u * v) + v * v
    size = jnp.where(size > 0, size, 1)
    half_total = 0.5 * jnp.copysign(jnp.where(v > 0, u + v, jnp.abs(q) / size), q)
    half_gap = 0.75**0.5 * jnp.where(v > 0, 2 * root / size, u - v)

    is_real = discriminant > 0
    center = jnp.where(is_real, half_cosine, half_total)
    width = jnp.where(is_real, half_width, 0)
    imag = jnp.where(is_real, 0, half_gap)
    return Eigenvalues(
        (2 * center, width - center, -width - center), (jnp.zeros_like(imag), imag, -imag)
    )


def _cosine_and_sine(angle: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of angles from 0 to pi / 3, by Taylor: the functions for any angle take longer on CPU."""
    square = angle * angle
    cosine: float | Array = 1.0
    sine: float | Array = 1.0
    for k in range(10, 0, -2):
        cosine = 1 - cosine * square * (1 / (k * (k - 1)))
        sine = 1 - sine * square * (1 / (k * (k + 1)))
    return jnp.asarray(cosine), angle * sine


def _cube_root(x: jax.Array) -> jax.Array:
    """Cube root of ``x >= 0``: several times faster on CPU than ``jnp.cbrt``."""
    positive = jnp.where(x > 0, x, 1)
    root = jnp.exp(jnp.log(positive) / 3)
    root = root - (root - positive / (root * root)) / 3
    return jnp.where(x > 0, root, 0)
