"""The table ``[G | g]`` of a problem, of which candidates are pivoted in and out one at a time.

It holds all that an active-set method decides by: the weights on the support, the pull of the
candidates off it, and what of each candidate the support does not explain. Problems lie along the
last axis.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jnnk._core import typed_jax
from jnnk._core.precision import contract
from jnnk.graphs._qp.certificate import Scales

# A candidate depends on the support if its pivot is at most so many roundings of the terms that it
# is the difference of.
_DEPENDENT = {"float32": 64, "float64": 4096}


class Exchange(NamedTuple):
    """The exchange of sides of one candidate k of each problem, as what is taken off its table.

    A pivot p turns row k into ``row / p``, column k into ``-column / p``, p into ``1 / p``, and
    takes ``column row / p`` off the rest. All of that is one product of ``column`` with p - 1 in
    place of p and ``row / p`` with p + 1 in place of p.

    Attributes:
        left: (K, N), that column; 0 where no candidate changes sides.
        right: (K, N), that row over p.
        value: (N,), entry k of the column of weights and pulls, over p.
    """

    left: jax.Array
    right: jax.Array
    value: jax.Array


class Tables(NamedTuple):
    """Problems (N,) with K candidates under pivoting.

    Attributes:
        table: (K, K, N), ``G`` with the support pivoted in: ``G_SS^-1`` on the support, the pivots
            of the others on their diagonal; all but the exchange that is still to come.
        column: (K, N), ``g`` pivoted alike: the solution on the support, the pull ``g - G w`` of
            the others.
        weights: (K, N), at least 0: the last point on the way to that solution without a negative
            weight.
        support: bool (K, N).
        barred: bool (K, N), candidates found to depend on the support.
        steps: int32 (N,), pivots made.
        busy: bool (N,), whether there is something left to do.
        exchange: `Exchange` that comes next. What a loop carries is computed once; what it computes
            on the way XLA would compute anew for every entry of the table.
    """

    table: jax.Array
    column: jax.Array
    weights: jax.Array
    support: jax.Array
    barred: jax.Array
    steps: jax.Array
    busy: jax.Array
    exchange: Exchange


def no_exchange(column: jax.Array) -> Exchange:
    """The exchange that changes no table of columns (K, N)."""
    nothing = jnp.zeros_like(column)
    return Exchange(nothing, nothing, nothing[0])


def exchanged(state: Tables) -> tuple[jax.Array, jax.Array]:
    """Table and column after the exchange that comes next."""
    left, right, value = state.exchange
    # The barrier keeps XLA from reading rows off a copy of the old table.
    table = jax.lax.optimization_barrier(state.table - left[:, None] * right[None])
    return table, state.column - left * value


def exchange_of(
    row: jax.Array, column: jax.Array, support: jax.Array, at: jax.Array, go: jax.Array
) -> Exchange:
    """The exchange of the candidate at which ``at`` (K, N) is True, where ``go`` (N,).

    Args:
        row: (K, N), that candidate's row of the table.
        column: (K, N), see `Tables`.
        support: bool (K, N), before the exchange.
        at: bool (K, N).
        go: bool (N,).
    """
    pivot = jnp.sum(jnp.where(at, row, 0), axis=0)
    value = jnp.sum(jnp.where(at, column, 0), axis=0)
    leaves = jnp.any(at & support, axis=0)
    inverse = jnp.where(go, 1 / jnp.where(go, pivot, 1), 0)
    # The table is symmetric but for the sign where exactly one of two candidates is in the support.
    other = jnp.where(support == leaves, row, -row)
    return Exchange(
        left=jnp.where(go, jnp.where(at, pivot - 1, other), 0),
        right=jnp.where(at, pivot + 1, row) * inverse,
        value=value * inverse,
    )


def row_of(table: jax.Array, index: jax.Array) -> jax.Array:
    """Row ``index`` (N,) of each table (K, K, N)."""

    def of_one(table: jax.Array, index: jax.Array) -> jax.Array:
        return table[index]

    return jax.vmap(of_one, (2, 0), 1)(table, index)


def is_independent(
    pivot: jax.Array, coefficients: jax.Array, support: jax.Array, at: jax.Array, scales: Scales
) -> jax.Array:
    """Whether (N,) the candidate where ``at`` is no sum of the support's but for rounding.

    Args:
        pivot: (N,), what the support leaves of its diagonal entry. It is known to rounding of what
            it is the difference of.
        coefficients: (K, N), of that sum, of any sign; off the support they may be anything.
        support: bool (K, N).
        at: bool (K, N).
        scales: of the problems.
    """
    eps, least = typed_jax.finfo(coefficients.dtype).eps, _DEPENDENT[coefficients.dtype.name]
    explained = jnp.where(support, scales.diagonal * coefficients * coefficients, 0)
    whole = jnp.sum(jnp.where(at, scales.diagonal, explained), axis=0)
    return pivot > least * eps * whole


def inverse_of(state: Tables) -> Callable[[jax.Array], jax.Array]:
    """``G_SS^-1`` as a map of right sides (K, N), to 0 off the support; no exchange is to come."""
    inverse = jnp.moveaxis(state.table, 2, 0)

    def applied(right: jax.Array) -> jax.Array:
        right = jnp.where(state.support, right, 0)
        return jnp.where(state.support, contract("bij,jb->ib", inverse, right), 0)

    return applied
