"""Conjugate gradients on supports, which solve on those that are surely regular."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jnnk._core import typed_jax
from jnnk.graphs._qp.certificate import amplification, probe
from jnnk.graphs._qp.sums import is_nontrivial, product, total_of

# Steps for one support, fewer once nearly all problems are solved to rounding.
_STEPS = 16
_UNSOLVED = 1 / 32
# What the steps may leave of the probe on a support that is regular.
_REACHED = 4e-3


class Trial(NamedTuple):
    """Solutions of B problems on supports of theirs.

    Attributes:
        weights: (K, B), 0 off the support; entries on it may be negative.
        amplified: (B,), see `certificate.amplification`; infinity where the support
            does not seem regular.
        spent: int32 (), products with gram.
    """

    weights: jax.Array
    amplified: jax.Array
    spent: jax.Array


class _Conjugate(NamedTuple):
    """Conjugate gradients for two right sides of B problems each, between two steps.

    Attributes:
        solution: (K, 2 B).
        residual: (K, 2 B), what the solution leaves of the right side, 0 off the support.
        direction: (K, 2 B), of the next step.
        energy: (2 B,), the preconditioned residual's square.
    """

    solution: jax.Array
    residual: jax.Array
    direction: jax.Array
    energy: jax.Array


def conjugate_gradient(
    gram: jax.Array,
    cross: jax.Array,
    constant: jax.Array,
    weights: jax.Array,
    support: jax.Array,
) -> Trial:
    """Conjugate gradients on a support, preconditioned by "diagonal + constant" restricted to it.

    For two right sides at once: what the weights leave of cross, and the `probe`. Of a dependent
    set they leave what of the probe it cannot reach: too little to be seen in about one of a
    hundred sets with one dependency, less with more.

    Args:
        gram: (B, K, K).
        cross: (K, B).
        constant: (B,) mean off-diagonal entry.
        weights: (K, B) to start from, 0 off the support.
        support: bool (K, B).
    """
    size, count = cross.shape
    eps = typed_jax.finfo(cross.dtype).eps

    def twice(first: jax.Array, second: jax.Array) -> jax.Array:
        return jnp.concatenate([first, second], axis=-1)

    diagonal = typed_jax.diagonals(gram).T - constant
    inverse = jnp.where(support, 1 / jnp.where(diagonal > 0, diagonal, 1), 0)
    # Sherman-Morrison.
    coupling = constant / (1 + constant * total_of(inverse))
    inside, inverse, coupling = (twice(x, x) for x in (support, inverse, coupling))
    margin = 8 * eps * jnp.max(jnp.abs(cross), axis=0)
    margin = twice(margin, jnp.full_like(margin, _REACHED))
    most = _UNSOLVED * jnp.sum(is_nontrivial(cross).astype(cross.dtype))

    def precondition(residual: jax.Array) -> jax.Array:
        scaled = inverse * residual
        return scaled - coupling * total_of(scaled) * inverse

    def unsolved(residual: jax.Array) -> jax.Array:
        far = total_of((jnp.abs(residual) > margin).astype(cross.dtype))
        return jnp.sum((far[:count] + far[count:] > 0).astype(cross.dtype)) > most

    def is_left(carry: tuple[jax.Array, jax.Array, _Conjugate]) -> jax.Array:
        return carry[1] & (carry[0] < _STEPS)

    def step(
        carry: tuple[jax.Array, jax.Array, _Conjugate],
    ) -> tuple[jax.Array, jax.Array, _Conjugate]:
        number, _, (solution, residual, direction, energy) = carry
        applied = twice(product(gram, direction[:, :count]), product(gram, direction[:, count:]))
        curvature = total_of(direction * applied)
        go = (curvature > 0) & (energy > 0)
        length = jnp.where(go, energy / jnp.where(go, curvature, 1), 0)
        solution = solution + length * direction
        residual = residual - jnp.where(inside, length * applied, 0)
        ahead = precondition(residual)
        new = total_of(residual * ahead)
        direction = ahead + jnp.where(go, new / jnp.where(go, energy, 1), 0) * direction
        return number + 1, unsolved(residual), _Conjugate(solution, residual, direction, new)

    right = twice(
        cross - product(gram, weights), jnp.broadcast_to(probe(size, cross.dtype), cross.shape)
    )
    right = jnp.where(inside, right, 0)
    direction = precondition(right)
    number, some = jnp.int32(0), unsolved(right)
    first = _Conjugate(jnp.zeros_like(right), right, direction, total_of(right * direction))
    number, _, found = jax.lax.while_loop(is_left, step, (number, some, first))
    left = jnp.max(jnp.abs(found.residual[:, count:]), axis=0)
    amplified = amplification(found.solution[:, count:])
    return Trial(
        weights + found.solution[:, :count],
        jnp.where(left <= _REACHED, amplified, jnp.inf),
        2 * number + 1,
    )
