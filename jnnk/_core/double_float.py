"""Unevaluated sums of two float32: about 47 bits where no float64 is to be had.

A characteristic polynomial of a defective matrix loses half or two thirds of the digits of its
coefficients in its roots; these keep enough of them. Compilers may contract a product and a sum
into one fused operation, so every product that enters an error-free sum here is of 12-bit factors,
hence exact, and is the same number fused or not (Dekker 1971; Ogita, Rump & Oishi 2005).
"""

import dataclasses

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DoubleFloat:
    """The number ``hi + lo``; ``+``, ``-`` and ``*`` also take a float32 array on the right.

    Sums have errors of 2 ** -47 of the larger term, products of about 2 ** -46 relative.

    Attributes:
        hi: float32, the number rounded.
        lo: float32 of the same shape, what rounding left.
    """

    hi: jax.Array
    lo: jax.Array

    def __add__(self, other: "DoubleFloat | jax.Array") -> "DoubleFloat":
        other = _as_double(other)
        total = exact_sum(self.hi, other.hi)
        return _exact_sum_ordered(total.hi, total.lo + (self.lo + other.lo))

    def __neg__(self) -> "DoubleFloat":
        return DoubleFloat(-self.hi, -self.lo)

    def __sub__(self, other: "DoubleFloat") -> "DoubleFloat":
        return self + -other

    def __mul__(self, other: "DoubleFloat | jax.Array") -> "DoubleFloat":
        other = _as_double(other)
        top, bottom = _halves(self.hi)
        other_top, other_bottom = _halves(other.hi)
        first = _exact_sum_ordered(top * other_top, top * other_bottom)
        second = _exact_sum_ordered(first.hi, bottom * other_top)
        lo = (first.lo + second.lo) + bottom * other_bottom
        lo = lo + (self.hi * other.lo + self.lo * other.hi)
        return _exact_sum_ordered(second.hi, lo)

    def scaled(self, power_of_two: float | jax.Array) -> "DoubleFloat":
        """The number times a power of two, exactly."""
        return DoubleFloat(self.hi * power_of_two, self.lo * power_of_two)


def exact_sum(a: jax.Array, b: jax.Array) -> DoubleFloat:
    """``a + b`` of two float32, without error."""
    hi = a + b
    part = hi - a
    return DoubleFloat(hi, (a - (hi - part)) + (b - part))


def exact_product(a: jax.Array, b: jax.Array) -> DoubleFloat:
    """``a * b`` of two float32, to 2 ** -47 relative; exact if it has at most 36 bits."""
    return _as_double(a) * b


def _as_double(a: DoubleFloat | jax.Array) -> DoubleFloat:
    return a if isinstance(a, DoubleFloat) else DoubleFloat(a, jnp.zeros_like(a))


def _exact_sum_ordered(large: jax.Array, small: jax.Array) -> DoubleFloat:
    """``large + small`` without error, if ``|large|`` is not smaller."""
    hi = large + small
    return DoubleFloat(hi, small - (hi - large))


def _halves(a: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Two float32 of at most 12 significant bits that sum to ``a``."""
    bits = jax.lax.bitcast_convert_type(a, jnp.uint32) & jnp.uint32(0xFFFFF000)
    top = jax.lax.bitcast_convert_type(bits, jnp.float32)
    return top, a - top
