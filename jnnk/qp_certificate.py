"""What can be said of a solution: how far it is from the optimum, and whether it is the only one."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

HIGHEST = jax.lax.Precision.HIGHEST
#: Sides are decided to rounding, in units of it times the largest cross entry, whatever tolerance
#: is asked for: at 1e-5 supports are not exact yet.
MARGIN = 16
#: Multipliers and pivots below this many units of rounding, 1.5e-5 in float32, may owe their sign to
#: it.
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


def certify(
    gram: jax.Array, cross: jax.Array, weights: jax.Array, absolute: jax.Array
) -> Certificate:
    """The certificate of weights.

    Args:
        gram: (B, K, K), posed.
        cross: (B, K).
        weights: (B, K), at least 0.
        absolute: (B, K), at least ``|G| w``.
    """
    # The transpose, so that weights which are right for a gram that is not symmetric are found out.
    gradient = cross - jnp.einsum("bji,bj->bi", gram, weights, precision=HIGHEST)
    # Zero weights add no rounding, so the number of terms is that of the support.
    terms = jnp.sum(weights > 0, axis=1, keepdims=True) + 3
    unit = jnp.finfo(cross.dtype).eps / 2
    rounding = 1.01 * unit * terms.astype(cross.dtype) * (jnp.abs(cross) + absolute)
    root = jnp.sqrt(jnp.diagonal(gram, axis1=1, axis2=2))

    def largest(excess):
        inside = jnp.abs(gradient) + excess
        outside = jnp.maximum(gradient + excess, 0)
        return jnp.max(jnp.where(weights > 0, inside, outside) / root, axis=1)

    size = jnp.max(jnp.abs(cross) / root, axis=1)
    return Certificate(gradient, largest(0), largest(rounding), size)
