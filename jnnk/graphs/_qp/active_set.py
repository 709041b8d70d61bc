"""Second phase: Lawson and Hanson's rule, on the problems that need it.

Candidates enter one at a time and leave as their weights reach 0 (Solving Least Squares Problems,
1974, chapter 23), which ends on every problem and keeps the support independent. The table
``[G | g]``, of which one candidate a step is pivoted in or out, holds all that decides: the weights
on the support, the pull of the candidates off it, and what of each candidate the support does not
explain. Problems lie along the last axis.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jnnk._core import typed_jax
from jnnk._core.precision import contract
from jnnk.graphs._qp.certificate import (
    MARGIN,
    WIDE,
    Certificate,
    Scales,
    amplification,
    certify,
    exact_gradient,
    is_ambiguous,
    probe,
    scales_of,
)
from jnnk.graphs._qp.scaling import Posed, pose

# Problems packed together: as many as a second-level cache holds tables of.
_PACK = 64
# A candidate depends on the support if its pivot is at most so many roundings of the terms that it
# is the difference of: `_DEPENDENT`, or `_DOUBTFUL` at least where its pull may be rounding too (up
# to `_WEAK` times the margin). More bars what float32 needs to converge; float64 loses nothing.
_DOUBTFUL, _WEAK = 64, 5
_DEPENDENT = {"float32": 1, "float64": 4096}
# Pulls this close to the largest, in units of rounding, are equal.
_EQUAL = 64
# Rounds of pivoting, after each of which weights and pulls are computed from gram.
_ROUNDS = 4
# Steps of refinement, and of those with residuals of twice the digits where rounding leaves more
# than it should.
_REFINEMENTS, _EXACT_REFINEMENTS = 3, 5


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
    exchange: "Exchange"


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
    return Solved(
        weights=weights.T * posed.scale * second[:, None] * first[:, None],
        residual=jnp.where(posed.bounded, certificate.bound * second * first, jnp.inf),
        relative=jnp.where(posed.bounded, relative, jnp.inf),
        ambiguous=ambiguous,
        steps=steps,
        done=done,
    )


def finish(gram: jax.Array, cross: jax.Array, found: Solved, *, max_steps: int) -> Solved:
    """Solves what is not done: exactly, on an independent support, the same by any path.

    Args:
        gram: (B, K, K).
        cross: (B, K).
        found: of `gradient.find_support`.
        max_steps: bound on pivots per problem. Where it stops the work, the better of the two
            phases' weights remain.
    """
    count = len(cross)
    pack = min(_PACK, count)
    waiting = ~found.done
    order = jnp.argsort(found.done, stable=True)
    number = jnp.sum(waiting)

    def is_left(carry: tuple[jax.Array, Solved]) -> jax.Array:
        return carry[0] < number

    def once(carry: tuple[jax.Array, Solved]) -> tuple[jax.Array, Solved]:
        start, found = carry
        first = jnp.minimum(start, count - pack)
        rows = jax.lax.dynamic_slice_in_dim(order, first, pack)
        # What comes after the last, or was done in the pack before, stays as it is.
        place = first + jnp.arange(pack)
        mine = (place >= start) & (place < number)
        before = Solved(*(field[rows] for field in found))
        after = _solve_pack(gram[rows], cross[rows], mine, max_steps)
        better = after.done | ~(after.relative >= before.relative)

        def choose(new: jax.Array, old: jax.Array) -> jax.Array:
            return jnp.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        after = Solved(*map(choose, after, before))
        after = after._replace(steps=before.steps + after.steps)
        rows = jnp.where(mine, rows, count)

        def write(old: jax.Array, new: jax.Array) -> jax.Array:
            return old.at[rows].set(new, mode="drop")

        found = Solved(*map(write, found, after))
        return start + pack, found

    if max_steps <= 0:
        return found
    return jax.lax.while_loop(is_left, once, (jnp.zeros((), number.dtype), found))[1]


def _solve_pack(gram: jax.Array, cross: jax.Array, mine: jax.Array, max_steps: int) -> Solved:
    """Solves N problems from an empty support; those that are not ``mine`` are left undone."""
    size, dtype = cross.shape[1], cross.dtype
    finite = jnp.isfinite(contract("bij,j->b", gram, jnp.full(size, 1 / size, dtype)))
    finite &= jnp.isfinite(contract("bj,j->b", cross, jnp.full(size, 1 / size, dtype)))
    # Of a gram that is not symmetric the objective sees the symmetric part alone.
    gram = jnp.where(finite[:, None, None], 0.5 * gram + 0.5 * gram.mT, jnp.eye(size, dtype=dtype))
    posed = pose(gram, jnp.where(finite[:, None], cross, 0))
    gram, cross = posed.gram, posed.cross.T
    scales = scales_of(gram, cross)
    nothing = jnp.zeros(cross.shape, bool)
    state = Tables(
        table=jnp.moveaxis(gram, 0, 2),
        column=cross,
        weights=jnp.zeros_like(cross),
        support=nothing,
        barred=nothing,
        steps=jnp.zeros(cross.shape[1], jnp.int32),
        busy=mine & finite,
        exchange=Exchange(*[jnp.zeros_like(cross)] * 2, value=jnp.zeros_like(cross[0])),
    )

    def is_busy(state: Tables) -> jax.Array:
        return jnp.any(state.busy)

    def pivot(state: Tables) -> Tables:
        return _pivot(state, scales, max_steps)

    def is_left(carry: tuple[jax.Array, Tables]) -> jax.Array:
        number, state = carry
        return is_busy(state) & (number < _ROUNDS)

    def pivots(carry: tuple[jax.Array, Tables]) -> tuple[jax.Array, Tables]:
        number, state = carry
        active = state.busy
        state = jax.lax.while_loop(is_busy, pivot, state)
        state = _polish(gram, cross, state, scales, active)
        return number + 1, state._replace(busy=state.busy & (state.steps < max_steps))

    _, state = jax.lax.while_loop(is_left, pivots, (jnp.zeros((), jnp.int32), state))
    applied = _inverse(state)
    weights, certificate = _certified(gram, cross, state.weights, applied, scales, mine)
    amplified = amplification(applied(jnp.broadcast_to(probe(size, dtype), cross.shape)))
    ambiguous = is_ambiguous(cross, weights, certificate, scales, amplified)
    found = solved(
        posed,
        weights,
        certificate,
        ambiguous=ambiguous & finite,
        steps=state.steps,
        done=state.steps < max_steps,
    )
    lost = ~finite | ~jnp.isfinite(found.residual) & posed.bounded
    return found._replace(
        weights=jnp.where(lost[:, None], 0, found.weights),
        residual=jnp.where(lost, jnp.inf, found.residual),
        relative=jnp.where(lost, jnp.inf, found.relative),
        done=found.done | ~finite,
    )


def _pivot(state: Tables, scales: Scales, max_steps: int) -> Tables:
    """Applies the last exchange to the table, and chooses the next one of each busy problem.

    A candidate leaves or enters, or there is none, and the problem rests.
    """
    left, right, value = state.exchange
    # The barrier keeps XLA from reading rows off a copy of the old table.
    table = jax.lax.optimization_barrier(state.table - left[:, None] * right[None])
    column = state.column - left * value
    eps = typed_jax.finfo(column.dtype).eps
    order = jnp.arange(len(column))[:, None]
    trial = jnp.where(state.support, column, 0)
    # Weights move towards the trial until one of them reaches 0; that candidate leaves.
    falling = state.support & (trial <= 0)
    drop = state.weights - trial
    share = jnp.where(falling, state.weights / jnp.where(falling & (drop > 0), drop, 1), 2)
    # Else the candidate of the largest pull enters, the first of several.
    pull = column / scales.root
    free = ~state.support & ~state.barred & (pull > MARGIN * eps * scales.size)
    pull = jnp.where(free, pull, 0)
    shortest, largest = jnp.min(share, axis=0), jnp.max(pull, axis=0)
    leaves = shortest < 2
    enters = ~leaves & (largest > 0)
    equal = free & (pull >= largest - _EQUAL * eps * scales.size)
    # Not the share that equals the shortest: computed twice, on a GPU, it may round otherwise.
    chosen = jnp.argmax(jnp.where(leaves, -share, equal.astype(share.dtype)), axis=0)
    at = order == chosen

    weights = state.weights + jnp.where(leaves, shortest, 1) * (trial - state.weights)
    weights = jnp.where(at & leaves, 0, jnp.maximum(weights, 0))

    def row_of(table: jax.Array, index: jax.Array) -> jax.Array:
        return table[index]

    row = jax.vmap(row_of, (2, 0), 1)(table, chosen)
    # A pivot is known to rounding of what the support takes away from it.
    explained = jnp.where(state.support, scales.diagonal * row * row, 0)
    pivot = jnp.sum(jnp.where(at, row, 0), axis=0)
    whole = jnp.sum(jnp.where(at, scales.diagonal, explained), axis=0)
    value = jnp.sum(jnp.where(at, column, 0), axis=0)
    is_weak = largest <= _WEAK * MARGIN * eps * scales.size
    least = _DEPENDENT[column.dtype.name]
    depends = enters & ~(pivot > jnp.where(is_weak, max(_DOUBTFUL, least), least) * eps * whole)
    some = state.busy & (leaves | enters) & (state.steps < max_steps)
    go = some & ~depends
    inverse = jnp.where(go, 1 / jnp.where(go, pivot, 1), 0)
    # The table is symmetric but for the sign where exactly one of two candidates is in the support.
    other = jnp.where(state.support == leaves, row, -row)
    return Tables(
        table=table,
        column=column,
        weights=jnp.where(state.busy, weights, state.weights),
        support=state.support ^ (at & go),
        barred=(state.barred & ~leaves) | (at & depends),
        steps=state.steps + go.astype(jnp.int32),
        busy=some,
        exchange=Exchange(
            left=jnp.where(go, jnp.where(at, pivot - 1, other), 0),
            right=jnp.where(at, pivot + 1, row) * inverse,
            value=value * inverse,
        ),
    )


def _polish(
    gram: jax.Array, cross: jax.Array, state: Tables, scales: Scales, active: jax.Array
) -> Tables:
    """Weights and pulls from gram itself, by refinement on the support; busy is what must go on.

    Of active problems alone: how often a problem is refined must not depend on the others.
    """
    eps = typed_jax.finfo(cross.dtype).eps
    applied = _inverse(state)

    def refined(_: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        trial, left = carry
        trial = trial + applied(left)
        return trial, cross - contract("bij,jb->ib", gram, trial)

    start = jnp.where(state.support, state.column, 0), jnp.zeros_like(cross)
    trial, pull = typed_jax.fori_loop(0, _REFINEMENTS, refined, start)
    enters = ~(state.support | state.barred) & (pull / scales.root > MARGIN * eps * scales.size)
    leaves = state.support & (trial <= 0)
    return state._replace(
        column=jnp.where(active, jnp.where(state.support, trial, pull), state.column),
        weights=jnp.where(active & ~jnp.any(leaves, axis=0), trial, state.weights),
        busy=active & jnp.any(enters | leaves, axis=0),
    )


def _inverse(state: Tables) -> Callable[[jax.Array], jax.Array]:
    """``G_SS^-1`` as a map of right sides (K, N), to 0 off the support."""
    inverse = jnp.moveaxis(state.table, 2, 0)

    def applied(right: jax.Array) -> jax.Array:
        right = jnp.where(state.support, right, 0)
        return jnp.where(state.support, contract("bij,jb->ib", inverse, right), 0)

    return applied


class _Refinement(NamedTuple):
    """Weights of N problems between two steps of refinement.

    Attributes:
        number: int32 (), steps made.
        weights: (K, N), at least 0.
        certificate: of the weights.
        wide: bool (N,), problems that the next step refines.
    """

    number: jax.Array
    weights: jax.Array
    certificate: Certificate
    wide: jax.Array


def _certified(
    gram: jax.Array,
    cross: jax.Array,
    weights: jax.Array,
    applied: Callable[[jax.Array], jax.Array],
    scales: Scales,
    mine: jax.Array,
) -> tuple[jax.Array, Certificate]:
    """Weights with their certificate, refined where rounding leaves much of a residual."""
    eps = typed_jax.finfo(cross.dtype).eps

    def certificate_of(weights: jax.Array, gradient: jax.Array | None = None) -> Certificate:
        absolute = contract("bij,jb->ib", jnp.abs(gram), weights)
        return certify(gram, cross, weights, absolute, scales, gradient=gradient)

    def is_wide(certificate: Certificate) -> jax.Array:
        return mine & (certificate.bound > WIDE * eps * scales.size)

    def is_left(carry: _Refinement) -> jax.Array:
        return jnp.any(carry.wide) & (carry.number < _EXACT_REFINEMENTS)

    def refined(carry: _Refinement) -> _Refinement:
        number, weights, certificate, wide = carry
        trial = jnp.maximum(weights + applied(certificate.gradient), 0)
        new = certificate_of(trial, exact_gradient(gram, cross, trial))
        better = wide & (new.bound < certificate.bound)

        def choose(after: jax.Array, before: jax.Array) -> jax.Array:
            return jnp.where(better, after, before)

        weights = choose(trial, weights)
        certificate = Certificate(*map(choose, new, certificate))
        return _Refinement(number + 1, weights, certificate, wide & is_wide(certificate))

    plain = certificate_of(weights)
    if cross.dtype != jnp.float32:
        return weights, plain
    start = _Refinement(jnp.zeros((), jnp.int32), weights, plain, is_wide(plain))
    end = jax.lax.while_loop(is_left, refined, start)
    return end.weights, end.certificate
