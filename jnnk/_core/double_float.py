"""Unevaluated sums of two float32: about 47 bits where no float64 is to be had.

A characteristic polynomial of a defective matrix loses half or two thirds of the digits of its
coefficients in its roots; these keep enough of them. Compilers may contract a product and a sum
into one fused operation, so every product that enters an error-free sum here is of 12-bit factors,
hence exact, and is the same number fused or not (Dekker 1971; Ogita, Rump & Oishi 2005).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class DoubleFloat(NamedTuple):
    """The number ``hi + lo``.

    Attributes:
        hi: float32, the number rounded.
        lo: float32 of the same shape, what rounding left.
    """

    hi: jax.Array
    lo: jax.Array


def exact_sum(a: jax.Array, b: jax.Array) -> DoubleFloat:
    """``a + b`` of two float32, without error."""
    hi = a + b
    part = hi - a
    return DoubleFloat(hi, (a - (hi - part)) + (b - part))


def exact_product(a: jax.Array, b: jax.Array) -> DoubleFloat:
    """``a * b`` of two float32, to 2 ** -47 relative; exact if it has at most 36 bits."""
    return multiply(DoubleFloat(a, jnp.zeros_like(a)), DoubleFloat(b, jnp.zeros_like(b)))


def add(x: DoubleFloat, y: DoubleFloat) -> DoubleFloat:
    """``x + y``, to 2 ** -47 of the larger one."""
    hi, lo = exact_sum(x.hi, y.hi)
    return _exact_sum_ordered(hi, lo + (x.lo + y.lo))


def negative(x: DoubleFloat) -> DoubleFloat:
    """``-x``."""
    return DoubleFloat(-x.hi, -x.lo)


def scale(x: DoubleFloat, power_of_two: float) -> DoubleFloat:
    """``x`` times a power of two, exactly."""
    return DoubleFloat(x.hi * power_of_two, x.lo * power_of_two)


def multiply(x: DoubleFloat, y: DoubleFloat) -> DoubleFloat:
    """``x * y``, to about 2 ** -46 relative."""
    x_top, x_bottom = _halves(x.hi)
    y_top, y_bottom = _halves(y.hi)
    hi, first = _exact_sum_ordered(x_top * y_top, x_top * y_bottom)
    hi, second = _exact_sum_ordered(hi, x_bottom * y_top)
    lo = (first + second) + x_bottom * y_bottom + (x.hi * y.lo + x.lo * y.hi)
    return _exact_sum_ordered(hi, lo)


def _exact_sum_ordered(large: jax.Array, small: jax.Array) -> DoubleFloat:
    hi = large + small
    return DoubleFloat(hi, small - (hi - large))


def _halves(a: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Two float32 of at most 12 significant bits that sum to ``a``."""
    bits = jax.lax.bitcast_convert_type(a, jnp.uint32) & jnp.uint32(0xFFFFF000)
    top = jax.lax.bitcast_convert_type(bits, jnp.float32)
    return top, a - top
