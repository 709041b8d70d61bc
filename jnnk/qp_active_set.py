"""Second phase: Lawson and Hanson's rule, on the problems that need it.

Candidates enter one at a time and leave as their weights reach 0 (Solving Least Squares Problems,
1974, chapter 23), which ends on every problem and keeps the support independent. The table
``[G | g]``, of which one candidate a step is pivoted in or out, holds all that decides: the weights
on the support, the pull of the candidates off it, and what of each candidate the support does not
explain.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jnnk.qp_certificate import (
    DOUBTFUL,
    HIGHEST,
    MARGIN,
    Certificate,
    certify,
    doubt,
    exact_gradient,
)
from jnnk.qp_scaling import Posed, pose

# Problems packed together: as many as a second-level cache holds tables of.
_PACK = 32
# Candidates whose pivot is within this many units of rounding, of what it is the difference of,
# depend on the support; with a tenth of it dependent ones came in.
_DEPENDENT = 1
# Pulls this close to the largest, in units of rounding, are equal.
_EQUAL = 64
# Times the pivoting goes on after weights and pulls were computed anew without the table.
_ROUNDS = 4
# Steps of refinement with residuals of twice the digits, where rounding leaves more than it should.
_REFINEMENTS = 4


class Tables(NamedTuple):
    """Problems (N,) with K candidates under pivoting.

    Attributes:
        table: (N, K, K), ``G`` with the support pivoted in: ``G_SS^-1`` on the support, the pivots
            of the others on their diagonal.
        column: (N, K), ``g`` pivoted alike: the solution on the support, the pull ``g - G w`` of
            the others.
        weights: (N, K), at least 0: the best on the way to that solution that is.
        support: bool (N, K).
        barred: bool (N, K), candidates found to depend on the support.
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
    """The exchange of sides of one candidate k of each problem, in the numbers it takes.

    Attributes:
        at: bool (N, K), k alone; nothing where no candidate changes sides.
        row: (N, K), row k of the new table; 0 where no candidate changes sides.
        other: (N, K), column k of the old table; so.
        edge: (N, K), column k of the new table.
        value: (N, 1), entry k of the new column.
    """

    at: jax.Array
    row: jax.Array
    other: jax.Array
    edge: jax.Array
    value: jax.Array


class Solved(NamedTuple):
    """Problems (B,) as far as they are solved.

    Attributes:
        weights: (B, K), at least 0, in the caller's units.
        residual: (B,), see `jnnk.qp.QPSolution.kkt_residual`.
        relative: (B,), the same over the largest cross entry.
        ambiguous: bool (B,), see `jnnk.qp.QPSolution.ambiguous`.
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
    posed: Posed, weights: jax.Array, certificate: Certificate, *, ambiguous, steps, done
) -> Solved:
    """What is known of posed problems, in the caller's units."""
    first, second = posed.unit[:, 0], posed.unit[:, 1]
    some = certificate.size > 0
    relative = certificate.bound / jnp.where(some, certificate.size, 1)
    return Solved(
        weights=weights * posed.scale * second[:, None] * first[:, None],
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
        found: of `jnnk.qp_gradient.find_support`.
        max_steps: bound on pivots per problem. Where it stops the work, the better of the two
            phases' weights remain.
    """
    count = len(cross)
    pack = min(_PACK, count)
    waiting = ~found.done
    order = jnp.argsort(found.done, stable=True)
    number = jnp.sum(waiting)

    def once(carry):
        start, found = carry
        first = jnp.minimum(start, count - pack)
        rows = jax.lax.dynamic_slice_in_dim(order, first, pack)
        # What comes after the last, or was done in the pack before, stays as it is.
        place = first + jnp.arange(pack)
        mine = (place >= start) & (place < number)
        before = jax.tree.map(lambda x: x[rows], found)
        after = _solve_pack(gram[rows], cross[rows], mine, max_steps)
        better = after.done | ~(after.relative >= before.relative)
        after = jax.tree.map(
            lambda x, y: jnp.where(better.reshape(-1, *[1] * (x.ndim - 1)), x, y), after, before
        )
        after = after._replace(steps=before.steps + after.steps)
        rows = jnp.where(mine, rows, count)
        found = jax.tree.map(lambda x, y: x.at[rows].set(y, mode="drop"), found, after)
        return start + pack, found

    if max_steps <= 0:
        return found
    return jax.lax.while_loop(
        lambda carry: carry[0] < number, once, (jnp.zeros((), number.dtype), found)
    )[1]


def _solve_pack(gram, cross, mine, max_steps) -> Solved:
    """Solves N problems from an empty support; those that are not ``mine`` are left undone."""
    size, dtype = cross.shape[1], cross.dtype
    ones = jnp.full(size, 1 / size, dtype)
    finite = jnp.isfinite(jnp.einsum("bij,j->bi", gram, ones, precision=HIGHEST)).all(1)
    finite &= jnp.isfinite(cross).all(1)
    # Of a gram that is not symmetric the objective sees the symmetric part alone.
    gram = jnp.where(finite[:, None, None], 0.5 * gram + 0.5 * gram.mT, jnp.eye(size, dtype=dtype))
    posed = pose(gram, jnp.where(finite[:, None], cross, 0), always=True)
    gram, cross = posed.gram, posed.cross
    scales = _scales(gram, cross)
    state = Tables(
        table=gram,
        column=cross,
        weights=jnp.zeros_like(cross),
        support=jnp.zeros(cross.shape, bool),
        barred=jnp.zeros(cross.shape, bool),
        steps=jnp.zeros(len(cross), jnp.int32),
        busy=mine & finite,
        exchange=Exchange(
            jnp.zeros(cross.shape, bool),
            *[jnp.zeros_like(cross)] * 3,
            value=jnp.zeros_like(cross[:, :1]),
        ),
    )

    def pivot(state):
        return _pivot(state, scales, max_steps)

    def pivots(carry):
        number, state = carry
        active = state.busy
        state = jax.lax.while_loop(lambda state: jnp.any(state.busy), pivot, state)
        state = _polish(gram, cross, state, scales)
        return number + 1, state._replace(busy=state.busy & active & (state.steps < max_steps))

    _, state = jax.lax.while_loop(
        lambda carry: jnp.any(carry[1].busy) & (carry[0] < _ROUNDS),
        pivots,
        (jnp.zeros((), jnp.int32), state),
    )
    state, certificate = _certified(gram, cross, state, mine)
    ambiguous = _ambiguous(cross, state, certificate, scales) & finite
    found = solved(
        posed,
        state.weights,
        certificate,
        ambiguous=ambiguous,
        steps=state.steps,
        done=state.steps < max_steps,
    )
    lost = ~finite | ~jnp.isfinite(found.weights).all(1)
    return found._replace(
        weights=jnp.where(lost[:, None], 0, found.weights),
        residual=jnp.where(lost, jnp.inf, found.residual),
        relative=jnp.where(lost, jnp.inf, found.relative),
        done=found.done | ~finite,
    )


class Scales(NamedTuple):
    """What pulls and pivots (N, K) are compared with.

    Attributes:
        diagonal: (N, K), of gram.
        root: (N, K), its root.
        size: (N, 1), the largest cross entry in units of that root.
    """

    diagonal: jax.Array
    root: jax.Array
    size: jax.Array


def _scales(gram, cross) -> Scales:
    diagonal = jnp.diagonal(gram, axis1=1, axis2=2)
    root = jnp.sqrt(diagonal)
    return Scales(diagonal, root, jnp.max(jnp.abs(cross) / root, axis=1, keepdims=True))


def _pivot(state: Tables, scales: Scales, max_steps) -> Tables:
    """One candidate of each busy problem leaves or enters, or its work is done for now."""
    state = _exchanged(state)
    eps = jnp.finfo(state.weights.dtype).eps
    order = jnp.arange(state.weights.shape[1])
    trial = jnp.where(state.support, state.column, 0)
    # As far towards the trial as no weight becomes negative; the first to reach 0 leaves.
    falling = state.support & (trial <= 0)
    drop = state.weights - trial
    share = jnp.where(falling, state.weights / jnp.where(falling & (drop > 0), drop, 1), 2)
    shortest = jnp.min(share, axis=1, keepdims=True)
    leaves = shortest < 2
    # Else the candidate of the largest pull enters, the first of several.
    pull = state.column / scales.root
    free = ~state.support & ~state.barred & (pull > MARGIN * eps * scales.size)
    pull = jnp.where(free, pull, 0)
    largest = jnp.max(pull, axis=1, keepdims=True)
    enters = ~leaves & (largest > 0)
    equal = free & (pull >= largest - _EQUAL * eps * scales.size)
    chosen = jnp.argmax(jnp.where(leaves, share == shortest, equal), axis=1)
    at = order == chosen[:, None]

    length = jnp.where(leaves, shortest, 1)
    weights = jnp.maximum(state.weights + length * (trial - state.weights), 0)
    weights = jnp.where(leaves, jnp.where(at, 0, weights), trial)
    row = jax.vmap(lambda table, index: table[index])(state.table, chosen)
    # A pivot is known to rounding of what the support takes away from it.
    explained = jnp.where(state.support, scales.diagonal * row * row, 0)
    pivot, whole = _sums(jnp.where(at, row, 0), jnp.where(at, scales.diagonal, explained))
    depends = enters & ~(pivot > _DEPENDENT * eps * whole)
    go = state.busy[:, None] & (leaves | (enters & ~depends))
    # The table is symmetric but for the sign where exactly one of two candidates is in the support.
    other = jnp.where(state.support == leaves, row, -row)
    inverse = jnp.where(go, 1 / jnp.where(go, pivot, 1), 0)
    other = jnp.where(go, other, 0)
    (value,) = _sums(jnp.where(at, state.column, 0))
    steps = state.steps + go[:, 0].astype(jnp.int32)
    return state._replace(
        weights=jnp.where(state.busy[:, None], weights, state.weights),
        barred=(state.barred & ~leaves) | (at & depends),
        steps=steps,
        busy=state.busy & (leaves | enters)[:, 0] & (steps <= max_steps),
        exchange=Exchange(
            at=at & go,
            row=jnp.where(at, inverse, row * inverse),
            other=other,
            edge=-other * inverse,
            value=value * inverse,
        ),
    )


def _exchanged(state: Tables) -> Tables:
    """The state after its next exchange."""
    at, row, other, edge, value = state.exchange
    table = state.table - other[:, :, None] * row[:, None, :]
    table = jnp.where(at[:, None, :], edge[:, :, None], table)
    table = jnp.where(at[:, :, None], row[:, None, :], table)
    column = jnp.where(at, value, state.column - other * value)
    return state._replace(table=table, column=column, support=state.support ^ at)


def _sums(*rows):
    """The sums (N, 1) of rows (N, K), exact where a row has one entry."""
    return [jnp.sum(x, axis=1, keepdims=True) for x in rows]


def _polish(gram, cross, state: Tables, scales: Scales) -> Tables:
    """Weights and pulls from gram itself, by two steps of refinement on the support."""
    eps = jnp.finfo(cross.dtype).eps

    def refined(trial):
        left = cross - jnp.einsum("bij,bj->bi", gram, trial, precision=HIGHEST)
        left = jnp.where(state.support, left, 0)
        step = jnp.einsum("bij,bj->bi", state.table, left, precision=HIGHEST)
        return trial + jnp.where(state.support, step, 0)

    trial = refined(refined(jnp.where(state.support, state.column, 0)))
    pull = cross - jnp.einsum("bij,bj->bi", gram, trial, precision=HIGHEST)
    enters = ~(state.support | state.barred) & (pull / scales.root > MARGIN * eps * scales.size)
    leaves = state.support & (trial <= 0)
    complete = ~jnp.any(leaves, axis=1, keepdims=True)
    return state._replace(
        column=jnp.where(state.support, trial, pull),
        weights=jnp.where(complete, trial, state.weights),
        busy=jnp.any(enters | leaves, axis=1),
    )


def _certified(gram, cross, state: Tables, mine) -> tuple[Tables, Certificate]:
    """Their certificate, after more refinement where rounding leaves much of a residual."""

    def certificate_of(weights, gradient=None):
        absolute = jnp.einsum("bij,bj->bi", jnp.abs(gram), weights, precision=HIGHEST)
        return certify(gram, cross, weights, absolute, gradient=gradient)

    plain = certificate_of(state.weights)
    if cross.dtype != jnp.float32:
        return state, plain
    wide = mine & (plain.bound > 4 * MARGIN * jnp.finfo(cross.dtype).eps * plain.size)

    def refined(_):
        def step(_, carry):
            weights, gradient = carry
            left = jnp.where(state.support, gradient, 0)
            step = jnp.einsum("bij,bj->bi", state.table, left, precision=HIGHEST)
            trial = jnp.maximum(weights + jnp.where(state.support, step, 0), 0)
            new = exact_gradient(gram, cross, trial)
            better = _worst(new, state.support) < _worst(gradient, state.support)
            return jax.tree.map(
                lambda x, y: jnp.where(better, x, y), (trial, new), (weights, gradient)
            )

        first = state.weights, exact_gradient(gram, cross, state.weights)
        weights, gradient = jax.lax.fori_loop(0, _REFINEMENTS, step, first)
        return weights, certificate_of(weights, gradient)

    def as_is(_):
        return state.weights, plain

    weights, sharp = jax.lax.cond(jnp.any(wide), refined, as_is, None)

    def chosen(x, y):
        return jnp.where(wide.reshape(-1, *[1] * (x.ndim - 1)), x, y)

    weights = chosen(weights, state.weights)
    return state._replace(weights=weights), jax.tree.map(chosen, sharp, plain)


def _worst(gradient, support):
    return jnp.max(jnp.where(support, jnp.abs(gradient), 0), axis=1, keepdims=True)


def _ambiguous(cross, state: Tables, certificate: Certificate, scales: Scales):
    """See `jnnk.qp.QPSolution.ambiguous`."""
    small = DOUBTFUL * jnp.finfo(cross.dtype).eps
    inverse = jnp.diagonal(state.table, axis1=1, axis2=2)
    pivot = jnp.where(state.support & (inverse > 0), 1 / jnp.where(inverse > 0, inverse, 1), 0)
    near = doubt(certificate)[:, None]
    loses = state.weights * pivot / scales.root <= near
    dependent = pivot <= small * scales.diagonal
    pull = certificate.gradient / scales.root
    # What has nothing in common with the query and the support cannot enter.
    apart = (cross == 0) & (certificate.gradient == 0)
    gains = (pull >= -near) & ~apart
    return jnp.any(jnp.where(state.support, loses | dependent, gains), axis=1)
