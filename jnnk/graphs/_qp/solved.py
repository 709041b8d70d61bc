"""Problems as far as they are solved, in the caller's units."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jnnk._core import typed_jax
from jnnk.graphs._qp.certificate import Certificate
from jnnk.graphs._qp.scaling import Posed


class Solved(NamedTuple):
    """Problems (B,) as far as they are solved.

    Attributes:
        weights: (B, K), at least 0, in the caller's units.
        residual: (B,), see `jnnk.graphs.QPSolution.kkt_residual`.
        relative: (B,), the same over the largest cross entry.
        ambiguous: bool (B,), see `jnnk.graphs.QPSolution.ambiguous`.
        steps: int32 (B,), products with gram and pivots.
        done: bool (B,), False where the second phase has to say.
    """

    weights: jax.Array
    residual: jax.Array
    relative: jax.Array
    ambiguous: jax.Array
    steps: jax.Array
    done: jax.Array


def solved(
    posed: Posed,
    weights: jax.Array,
    certificate: Certificate,
    *,
    ambiguous: jax.Array,
    steps: jax.Array,
    done: jax.Array,
) -> Solved:
    """What is known of posed problems with weights (K, B), in the caller's units."""
    first, second = posed.unit[:, 0], posed.unit[:, 1]
    some = certificate.size > 0
    relative = certificate.bound / jnp.where(some, certificate.size, 1)
    # Numbers too small for the dtype are lost, and what they would have explained adds to it.
    lost = 2 * typed_jax.finfo(weights.dtype).tiny * jnp.sum(1 / posed.scale, axis=1)
    residual = certificate.bound * second * first + jnp.where(some, lost, 0)
    return Solved(
        weights=weights.T * posed.scale * second[:, None] * first[:, None],
        residual=jnp.where(posed.bounded, residual, jnp.inf),
        relative=jnp.where(posed.bounded, relative, jnp.inf),
        ambiguous=ambiguous,
        steps=steps,
        done=done,
    )
