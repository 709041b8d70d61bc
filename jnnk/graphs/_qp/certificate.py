"""How far a solution is from the optimum, its own rounding included, and what that leaves open.

Problems lie along the last axis: vectors are (K, B).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jnnk._core import typed_jax
from jnnk._core.double_float import DoubleFloat, exact_product
from jnnk._core.precision import contract

#: Sides are decided to rounding, in units of it times the largest cross entry, whatever tolerance
#: is asked for: at 1e-5 supports are not exact yet.
MARGIN = 16
#: Certificates that are wider than so many units are refined.
WIDE = 64
#: Multipliers below this many units, 1.5e-5 in float32, may owe their sign to rounding.
DOUBTFUL = 128


class Scales(NamedTuple):
    """What the numbers of posed problems (B,) are compared with.

    Attributes:
        diagonal: (K, B), of gram.
        root: (K, B), its root.
        size: (B,), the largest cross entry in size, each in units of that root.
    """

    diagonal: jax.Array
    root: jax.Array
    size: jax.Array


def scales_of(gram: jax.Array, cross: jax.Array) -> Scales:
    """The `Scales` of gram (B, K, K) and cross (K, B)."""
    diagonal = typed_jax.diagonals(gram).T
    root = jnp.sqrt(diagonal)
    return Scales(diagonal, root, jnp.max(jnp.abs(cross) / root, axis=0))


class Certificate(NamedTuple):
    """What weights (K, B) leave of the optimality conditions of posed problems.

    Attributes:
        gradient: (K, B), ``g - G w``.
        residual: (B,), the largest violation of the conditions as computed, each in units of the
            root of its diagonal entry.
        bound: (B,), the same with the rounding of the gradient added: at least the true one.
        size: (B,), see `Scales`.
    """

    gradient: jax.Array
    residual: jax.Array
    bound: jax.Array
    size: jax.Array


def certify(
    gram: jax.Array,
    cross: jax.Array,
    weights: jax.Array,
    absolute: jax.Array,
    scales: Scales,
    *,
    gradient: jax.Array | None = None,
) -> Certificate:
    """The certificate of weights.

    Args:
        gram: (B, K, K), posed.
        cross: (K, B).
        weights: (K, B), at least 0.
        absolute: (K, B), at least ``|G| w``.
        scales: of the problems.
        gradient: of `exact_gradient`, if that is known.
    """
    unit = typed_jax.finfo(cross.dtype).eps / 2
    if gradient is None:
        # The transpose: weights that are right for a gram which is not symmetric are found out.
        gradient = cross - contract("bji,jb->ib", gram, weights)
        # Zero weights add no rounding, so the number of terms is that of the support.
        terms = jnp.sum((weights > 0).astype(cross.dtype), axis=0) + 3
        rounding = 1.01 * unit * terms * (jnp.abs(cross) + absolute)
    else:
        rounding = unit * jnp.abs(gradient) + 2**-38 * (jnp.abs(cross) + absolute)

    def largest(excess: jax.Array | int) -> jax.Array:
        inside = jnp.abs(gradient) + excess
        outside = jnp.maximum(gradient + excess, 0)
        return jnp.max(jnp.where(weights > 0, inside, outside) / scales.root, axis=0)

    # Division by the root and this sum round too.
    bound = largest(rounding) * (1 + 8 * unit)
    return Certificate(gradient, largest(0), bound, scales.size)


def exact_gradient(gram: jax.Array, cross: jax.Array, weights: jax.Array) -> jax.Array:
    """``g - G w`` (K, B) of symmetric float32 problems, summed in two float32, rounded once.

    What is lost before is below ``2**-38 (|g| + |G| w)`` up to K = 128.
    """

    def add_term(j: jax.Array, total: DoubleFloat) -> DoubleFloat:
        return total + exact_product(gram[:, j], -weights[j][:, None])

    start = DoubleFloat(cross.T, jnp.zeros_like(cross.T))
    total = typed_jax.fori_loop(0, len(cross), add_term, start)
    return (total.hi + total.lo).T


def probe(size: int, dtype: DTypeLike) -> jax.Array:
    """A right side (K, 1) of no meaning, of numbers between -1 and 1.

    The fractional parts of multiples of the golden ratio: spread evenly, and near ones far apart.
    """
    numbers = np.arange(1, size + 1) * 0.6180339887498949
    return jnp.asarray(2 * (numbers % 1) - 1, dtype)[:, None]


def amplification(answer: jax.Array) -> jax.Array:
    """How many times (B,) as uncertain as the multipliers weights are, at least 1.

    Args:
        answer: (K, B), ``G_SS^-1`` times the `probe` on the support, 0 off it.
    """
    return jnp.maximum(jnp.max(jnp.abs(answer), axis=0), 1)


def is_ambiguous(
    cross: jax.Array,
    weights: jax.Array,
    certificate: Certificate,
    scales: Scales,
    amplified: jax.Array,
    *,
    units: float = DOUBTFUL,
    roundings: float = 8,
) -> jax.Array:
    """Whether (B,) errors of the multipliers of so many units and roundings may change the support.

    Args:
        cross: (K, B), of posed problems.
        weights: (K, B).
        certificate: of the weights.
        scales: of the problems.
        amplified: (B,), see `amplification`.
        units: errors, in units of rounding times the largest cross entry,
        roundings: and in those of the gradient.
    """
    eps = typed_jax.finfo(cross.dtype).eps
    near = units * eps * scales.size + roundings * (certificate.bound - certificate.residual)
    # What has nothing in common with the query and the support cannot enter.
    apart = (cross == 0) & (certificate.gradient == 0)
    enters = (certificate.gradient / scales.root >= -near) & ~apart
    leaves = weights * scales.root <= amplified * near
    some = jnp.any(jnp.where(weights > 0, leaves, enters), axis=0)
    return some | ~(amplified * units * eps < 1)
