"""Exchange of two candidates at once, where one is pulled but depends on the support.

Its weight grows at the cost of those that it is the sum of, and nothing else changes, until one of
them reaches 0 and leaves. No pivot of one candidate can do that: its own is rounding. The table is
made anew from gram, since a support near which others depend has cost it digits.
"""

import jax
import jax.numpy as jnp

from jnnk._core import typed_jax
from jnnk.graphs._qp.certificate import WIDE, Scales
from jnnk.graphs._qp.refinement import refined_on_support
from jnnk.graphs._qp.tables import (
    Tables,
    exchange_of,
    exchanged,
    is_independent,
    no_exchange,
    row_of,
)

# Coefficients below this part of the largest may be rounding.
_LEAST = 1e-3


def swap(
    gram: jax.Array, cross: jax.Array, state: Tables, scales: Scales, resting: jax.Array
) -> Tables:
    """Swaps in the barred candidate of the largest pull, of resting problems that have such a one.

    As its weight grows, others of the support fall; the one that reaches 0 first leaves. If none
    falls, it enters only if its pivot, computed from gram, shows it to be independent.
    """
    eps = typed_jax.finfo(cross.dtype).eps
    order = jnp.arange(len(cross))[:, None]
    pull = jnp.where(state.barred, state.column / scales.root, 0)
    pulled = resting & (jnp.max(pull, axis=0) > WIDE * eps * scales.size)

    def swapped(state: Tables) -> Tables:
        chosen = jnp.argmax(pull, axis=0)
        at = order == chosen
        column = row_of(jnp.moveaxis(gram, 0, 2), chosen)
        coefficients = refined_on_support(gram, column, state, jnp.zeros_like(cross))
        falling = state.support & (coefficients > _LEAST * jnp.max(jnp.abs(coefficients), axis=0))
        lengths = jnp.where(falling, state.weights / jnp.where(falling, coefficients, 1), jnp.inf)
        length = jnp.min(lengths, axis=0)
        leaves = jnp.isfinite(length)
        pivot = jnp.sum(jnp.where(at, column, -column * coefficients), axis=0)
        go = pulled & (leaves | is_independent(pivot, coefficients, state.support, at, scales))

        length = jnp.where(leaves, length, 0)
        weights = jnp.where(at, length, jnp.maximum(state.weights - length * coefficients, 0))
        out = (order == jnp.argmin(lengths, axis=0)) & leaves
        weights = jnp.where(out, 0, weights)
        members = (state.support & ~out) | at
        return _rebuilt(gram, cross, state, scales, members, weights, go)

    def same(state: Tables) -> Tables:
        return state

    return typed_jax.cond(jnp.any(pulled), swapped, same, state)


def _rebuilt(
    gram: jax.Array,
    cross: jax.Array,
    state: Tables,
    scales: Scales,
    members: jax.Array,
    weights: jax.Array,
    go: jax.Array,
) -> Tables:
    """Tables built from gram where ``go`` (N,), with ``members`` (K, N) as support.

    Members enter one at a time, the largest pivot first, with weights (K, N) from which pivoting
    goes on. One that depends on those before it is barred and loses its weight.
    """
    order = jnp.arange(len(cross))[:, None]
    none = no_exchange(cross)
    state = state._replace(
        table=jnp.where(go, jnp.moveaxis(gram, 0, 2), state.table),
        column=jnp.where(go, cross, state.column),
        weights=jnp.where(go, weights, state.weights),
        support=state.support & ~go,
        barred=state.barred & ~go,
        busy=state.busy | go,
        exchange=none,
    )

    def is_waiting(carry: tuple[Tables, jax.Array]) -> jax.Array:
        return jnp.any(carry[1])

    def enter(carry: tuple[Tables, jax.Array]) -> tuple[Tables, jax.Array]:
        state, waiting = carry
        table, column = exchanged(state)
        pivots = typed_jax.diagonals(jnp.moveaxis(table, 2, 0)).T
        chosen = jnp.argmax(jnp.where(waiting, pivots / scales.diagonal, -jnp.inf), axis=0)
        at = (order == chosen) & waiting
        row = row_of(table, chosen)
        pivot = jnp.sum(jnp.where(at, row, 0), axis=0)
        enters = is_independent(pivot, row, state.support, at, scales) & jnp.any(at, axis=0)
        state = state._replace(
            table=table,
            column=column,
            weights=jnp.where(at & ~enters, 0, state.weights),
            support=state.support | (at & enters),
            barred=state.barred | (at & ~enters),
            steps=state.steps + enters.astype(jnp.int32),
            exchange=exchange_of(row, column, state.support, at, enters),
        )
        return state, waiting & ~at

    state, _ = jax.lax.while_loop(is_waiting, enter, (state, members & go))
    table, column = exchanged(state)
    return state._replace(table=table, column=column, exchange=none)
