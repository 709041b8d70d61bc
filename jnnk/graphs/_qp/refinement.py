"""Weights and pulls of a support from gram itself, beyond what its table has kept of their digits.

Problems lie along the last axis.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jnnk._core import typed_jax
from jnnk._core.precision import contract
from jnnk.graphs._qp.certificate import MARGIN, WIDE, Certificate, Scales, certify, exact_gradient
from jnnk.graphs._qp.tables import Tables, inverse_of, row_of

# Steps of refinement, and of those with residuals of twice the digits where rounding leaves more
# than it should.
_REFINEMENTS, _EXACT_REFINEMENTS = 2, 12


def polish(
    gram: jax.Array, cross: jax.Array, state: Tables, scales: Scales, active: jax.Array
) -> Tables:
    """Weights and pulls by refinement on the support; busy is what must go on.

    Of active problems alone: how often a problem is refined must not depend on the others.
    """
    eps = typed_jax.finfo(cross.dtype).eps
    trial = refined_on_support(gram, cross, state, jnp.where(state.support, state.column, 0))
    pull = cross - contract("bij,jb->ib", gram, trial)
    enters = ~(state.support | state.barred) & (pull / scales.root > MARGIN * eps * scales.size)
    leaves = state.support & (trial <= 0)
    return state._replace(
        column=jnp.where(active, jnp.where(state.support, trial, pull), state.column),
        weights=jnp.where(active & ~jnp.any(leaves, axis=0), trial, state.weights),
        busy=active & jnp.any(enters | leaves, axis=0),
    )


def refined_on_support(
    gram: jax.Array, right: jax.Array, state: Tables, start: jax.Array
) -> jax.Array:
    """``G_SS^-1 right_S`` (K, N), 0 off the support, by refinement of ``start``."""
    applied = inverse_of(state)

    def refined(_: jax.Array, solution: jax.Array) -> jax.Array:
        return solution + applied(right - contract("bij,jb->ib", gram, solution))

    return typed_jax.fori_loop(0, _REFINEMENTS, refined, start)


class Weighed(NamedTuple):
    """Weights of N problems with what they leave.

    Attributes:
        weights: (K, N), at least 0.
        certificate: of the weights.
    """

    weights: jax.Array
    certificate: Certificate


class _Refinement(NamedTuple):
    """N problems between two steps of refinement.

    Attributes:
        number: int32 (), steps made.
        last: of the last step.
        best: of the step with the smallest bound.
        wide: bool (N,), problems that the next step refines.
    """

    number: jax.Array
    last: Weighed
    best: Weighed
    wide: jax.Array


def certified(
    gram: jax.Array, cross: jax.Array, state: Tables, scales: Scales, mine: jax.Array
) -> Weighed:
    """Weights with their certificate, refined where rounding leaves much of a residual.

    Each step corrects the worst violation alone, with the least change of the gradient on the
    support. A candidate that is a large multiple of the support's magnifies their rounding as much,
    so that weights exact on the support alone would not do. Of other dtypes than float32 nothing is
    refined.
    """
    eps = typed_jax.finfo(cross.dtype).eps
    applied = inverse_of(state)

    def weighed(weights: jax.Array, gradient: jax.Array | None = None) -> Weighed:
        absolute = contract("bij,jb->ib", jnp.abs(gram), weights)
        certificate = certify(gram, cross, weights, absolute, scales, gradient=gradient)
        return Weighed(weights, certificate)

    def is_wide(weighed: Weighed) -> jax.Array:
        return mine & (weighed.certificate.bound > WIDE * eps * scales.size)

    def is_left(carry: _Refinement) -> jax.Array:
        return jnp.any(carry.wide) & (carry.number < _EXACT_REFINEMENTS)

    def refined(carry: _Refinement) -> _Refinement:
        # The first step changes no weight; it computes the gradient exactly.
        change = _correction_of_worst(gram, carry.last, applied, scales)
        change = jnp.where(carry.number > 0, change, 0)
        weights = jnp.maximum(carry.last.weights + change, 0)
        last = weighed(weights, exact_gradient(gram, cross, weights))
        best = _better(last, carry.best, carry.wide)
        return _Refinement(carry.number + 1, last, best, carry.wide & is_wide(best))

    plain = weighed(state.weights)
    if cross.dtype != jnp.float32:
        return plain
    start = _Refinement(jnp.zeros((), jnp.int32), plain, plain, is_wide(plain))
    return jax.lax.while_loop(is_left, refined, start).best


def _better(one: Weighed, other: Weighed, where: jax.Array) -> Weighed:
    """The one with the smaller bound where ``where`` (N,); elsewhere ``other``."""
    is_better = where & (one.certificate.bound < other.certificate.bound)

    def choose(one: jax.Array, other: jax.Array) -> jax.Array:
        return jnp.where(is_better, one, other)

    return jax.tree.map(choose, one, other)


def _correction_of_worst(
    gram: jax.Array,
    weighed: Weighed,
    applied: Callable[[jax.Array], jax.Array],
    scales: Scales,
) -> jax.Array:
    """The change (K, N) of weights on the support that makes the worst violation 0.

    Of those that do, the one that changes the gradient on the support least.
    """
    weights, (gradient, *_) = weighed
    violation = jnp.where(weights > 0, jnp.abs(gradient), gradient) / scales.root
    worst = jnp.argmax(violation, axis=0)
    at = jnp.arange(len(weights))[:, None] == worst
    column = row_of(jnp.moveaxis(gram, 0, 2), worst)
    # The sum of the support's candidates that this one is; of one on the support, itself.
    coefficients = applied(column)
    coefficients += applied(column - contract("bij,jb->ib", gram, coefficients))
    square = jnp.sum(coefficients * coefficients, axis=0)
    value = jnp.sum(jnp.where(at, gradient, 0), axis=0)
    return applied(coefficients * (value / jnp.where(square > 0, square, 1)))
