"""How far a solution is from the optimum, its own rounding included."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jnnk.double_float import DoubleFloat, add, exact_product

HIGHEST = jax.lax.Precision.HIGHEST
#: Sides are decided to rounding, in units of it times the largest cross entry, whatever tolerance
#: is asked for: at 1e-5 supports are not exact yet.
MARGIN = 16
#: Multipliers and pivots below this many units of rounding, 1.5e-5 in float32, may owe their sign
#: to it.
DOUBTFUL = 128


class Certificate(NamedTuple):
    """What weights (B, K) leave of the optimality conditions of posed problems.

    Attributes:
        gradient: (B, K), ``g - G w``.
        residual: (B,), the largest violation of the conditions as computed, each in units of the
            root of its diagonal entry.
        bound: (B,), the same with the rounding of the gradient added: at least the true one.
        size: (B,), the largest cross entry in size, in those units.
    """

    gradient: jax.Array
    residual: jax.Array
    bound: jax.Array
    size: jax.Array


def doubt(certificate: Certificate) -> jax.Array:
    """The size (B,) of multipliers whose sign may be owed to rounding."""
    eps = jnp.finfo(certificate.size.dtype).eps
    rounding = certificate.bound - certificate.residual
    return DOUBTFUL * eps * certificate.size + 8 * rounding


def certify(
    gram: jax.Array,
    cross: jax.Array,
    weights: jax.Array,
    absolute: jax.Array,
    *,
    gradient: jax.Array | None = None,
) -> Certificate:
    """The certificate of weights.

    Args:
        gram: (B, K, K), posed.
        cross: (B, K).
        weights: (B, K), at least 0.
        absolute: (B, K), at least ``|G| w``.
        gradient: of `exact_gradient`, if that is known.
    """
    unit = jnp.finfo(cross.dtype).eps / 2
    if gradient is None:
        # The transpose: weights that are right for a gram which is not symmetric are found out.
        gradient = cross - jnp.einsum("bji,bj->bi", gram, weights, precision=HIGHEST)
        # Zero weights add no rounding, so the number of terms is that of the support.
        terms = (jnp.sum(weights > 0, axis=1, keepdims=True) + 3).astype(cross.dtype)
        rounding = 1.01 * unit * terms * (jnp.abs(cross) + absolute)
    else:
        rounding = unit * jnp.abs(gradient) + 2**-40 * (jnp.abs(cross) + absolute)
    root = jnp.sqrt(jnp.diagonal(gram, axis1=1, axis2=2))

    def largest(excess):
        inside = jnp.abs(gradient) + excess
        outside = jnp.maximum(gradient + excess, 0)
        return jnp.max(jnp.where(weights > 0, inside, outside) / root, axis=1)

    size = jnp.max(jnp.abs(cross) / root, axis=1)
    return Certificate(gradient, largest(0), largest(rounding), size)


def exact_gradient(gram: jax.Array, cross: jax.Array, weights: jax.Array) -> jax.Array:
    """``g - G w`` of float32 problems, every sum in two float32, rounded once.

    What is lost before is below ``2**-40 (|g| + |G| w)`` up to K = 128.
    """
    terms = exact_product(gram, jnp.broadcast_to(weights[:, None, :], gram.shape))
    terms = jax.tree.map(lambda x: jnp.concatenate([x, x[:, :, :1]], axis=2), terms)
    terms = DoubleFloat(terms.hi.at[:, :, -1].set(-cross), terms.lo.at[:, :, -1].set(0))
    while (length := terms.hi.shape[2]) > 1:
        if length % 2:
            terms = jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, 0), (0, 1))), terms)
        first = jax.tree.map(lambda x: x[:, :, : x.shape[2] // 2], terms)
        second = jax.tree.map(lambda x: x[:, :, x.shape[2] // 2 :], terms)
        terms = add(first, second)
    return -(terms.hi + terms.lo)[:, :, 0]
