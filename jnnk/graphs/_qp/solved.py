"""Problems as far as they are solved, in the caller's units."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jnnk._core import typed_jax
from jnnk.graphs._qp.certificate import Certificate
from jnnk.graphs._qp.scaling import Posed, nearest_power


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
    """What is known of posed problems with weights (K, B), in the caller's units.

    Weights that are worse than none, as those of hardly regular supports may be, are replaced by 0.
    """
    cross, root = posed.cross.T, jnp.sqrt(typed_jax.diagonals(posed.gram)).T
    # Twice the objective is minus that sum.
    is_worse = jnp.sum(weights * (cross + certificate.gradient), axis=0) < 0
    weights = jnp.where(is_worse, 0, weights)
    of_none = jnp.max(jnp.maximum(cross, 0) / root, axis=0)
    bound = jnp.where(is_worse, of_none, certificate.bound)
    first, second = posed.unit[:, 0], posed.unit[:, 1]
    tiny = typed_jax.finfo(weights.dtype).tiny
    # Halves of its exponent, so that no product on the way leaves the range of the dtype.
    half = nearest_power(jnp.sqrt(first))
    factor = (posed.scale * half[:, None]) * (second * (first / half))[:, None]
    found = weights.T * factor
    # What weights too small for a number would have explained adds to the residual.
    lost = 1.5 * jnp.sum(jnp.where(found < tiny, weights.T, 0), axis=1)
    bound, some = bound + lost, certificate.size > 0
    residual = bound * (second * (first / half)) * half + jnp.where(some, 2 * tiny, 0)
    relative = bound / jnp.where(some, certificate.size, 1)
    return Solved(
        weights=found,
        residual=jnp.where(posed.bounded, residual, jnp.inf),
        relative=jnp.where(posed.bounded, relative, jnp.inf),
        ambiguous=ambiguous | is_worse,
        steps=steps,
        done=done,
    )
