"""Second phase: Lawson and Hanson's rule, on the problems that need it.

Candidates enter one at a time and leave as their weights reach 0 (Solving Least Squares Problems,
1974, chapter 23), which ends on every problem and keeps the support independent. Problems lie along
the last axis.
"""

import jax
import jax.numpy as jnp

from jnnk._core import typed_jax
from jnnk._core.precision import contract
from jnnk.graphs._qp.certificate import (
    MARGIN,
    Scales,
    amplification,
    is_ambiguous,
    probe,
    scales_of,
)
from jnnk.graphs._qp.refinement import certified, polish
from jnnk.graphs._qp.scaling import pose
from jnnk.graphs._qp.solved import Solved, solved
from jnnk.graphs._qp.swaps import swap
from jnnk.graphs._qp.tables import (
    Tables,
    exchange_of,
    exchanged,
    inverse_of,
    is_independent,
    no_exchange,
    row_of,
)

# Problems packed together: as many as a second-level cache holds tables of.
_PACK = 64
# Pulls this close to the largest, in units of rounding, are equal.
_EQUAL = 64
# Rounds of pivoting, after each of which weights and pulls are computed from gram, and candidates
# swapped that no single exchange brings in.
_ROUNDS = 8


def finish(gram: jax.Array, cross: jax.Array, found: Solved, *, max_steps: int) -> Solved:
    """Solves what is not done: exactly, on an independent support, the same by any path.

    Args:
        gram: (B, K, K).
        cross: (B, K).
        found: of `gradient.find_support`.
        max_steps: bound on pivots per problem, which a swap may pass by those that make its table
            anew. Where it stops the work, the better of the two phases' weights remain.
    """
    count = len(cross)
    # Two at least: products of one problem are summed in another order than those of several.
    pack = max(2, min(_PACK, count))
    waiting = ~found.done
    order = jnp.argsort(found.done, stable=True)
    order = order if count > 1 else jnp.concatenate([order, order])
    number = jnp.sum(waiting)

    def is_left(carry: tuple[jax.Array, Solved]) -> jax.Array:
        return carry[0] < number

    def once(carry: tuple[jax.Array, Solved]) -> tuple[jax.Array, Solved]:
        start, found = carry
        first = jnp.minimum(start, len(order) - pack)
        rows = jax.lax.dynamic_slice_in_dim(order, first, pack)
        # What comes after the last, or was done in the pack before, stays as it is.
        place = first + jnp.arange(pack)
        mine = (place >= start) & (place < number)
        before = Solved(*(field[rows] for field in found))
        after = _solve_pack(gram[rows], cross[rows], mine, max_steps)
        # On a support that is as good as dependent it may leave more than half of the digits.
        good = typed_jax.finfo(cross.dtype).eps ** 0.5
        better = after.done & (after.relative <= good) | ~(after.relative >= before.relative)

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
        exchange=no_exchange(cross),
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
        state = polish(gram, cross, state, scales, active)
        # After the last round nobody would compute what a swap leads to.
        resting = active & ~state.busy & (number < _ROUNDS - 1)
        state = swap(gram, cross, state, scales, resting)
        return number + 1, state._replace(busy=state.busy & (state.steps < max_steps))

    _, state = jax.lax.while_loop(is_left, pivots, (jnp.zeros((), jnp.int32), state))
    weights, certificate = certified(gram, cross, state, scales, mine)
    amplified = amplification(inverse_of(state)(jnp.broadcast_to(probe(size, dtype), cross.shape)))
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

    One candidate leaves, or enters, or is barred since it depends on the support; a problem with
    none of these rests. Bars fall when a candidate leaves.
    """
    table, column = exchanged(state)
    eps = typed_jax.finfo(column.dtype).eps
    order = jnp.arange(len(column))[:, None]
    trial = jnp.where(state.support, column, 0)
    # Weights move towards the trial until one of them reaches 0; that candidate leaves.
    falling = state.support & (trial <= 0)
    drop = state.weights - trial
    length = jnp.where(falling, state.weights / jnp.where(falling & (drop > 0), drop, 1), 2)
    # Else the candidate of the largest pull enters, the first of several.
    pull = column / scales.root
    free = ~state.support & ~state.barred & (pull > MARGIN * eps * scales.size)
    pull = jnp.where(free, pull, 0)
    shortest, largest = jnp.min(length, axis=0), jnp.max(pull, axis=0)
    leaves = shortest < 2
    enters = ~leaves & (largest > 0)
    equal = free & (pull >= largest - _EQUAL * eps * scales.size)
    # By argmax, not by comparing with the shortest: computed twice, a GPU may round it otherwise.
    chosen = jnp.argmax(jnp.where(leaves, -length, equal.astype(length.dtype)), axis=0)
    at = order == chosen

    weights = state.weights + jnp.where(leaves, shortest, 1) * (trial - state.weights)
    weights = jnp.where(at & leaves, 0, jnp.maximum(weights, 0))

    row = row_of(table, chosen)
    pivot = jnp.sum(jnp.where(at, row, 0), axis=0)
    depends = enters & ~is_independent(pivot, row, state.support, at, scales)
    some = state.busy & (leaves | enters) & (state.steps < max_steps)
    go = some & ~depends
    return Tables(
        table=table,
        column=column,
        weights=jnp.where(state.busy, weights, state.weights),
        support=state.support ^ (at & go),
        barred=(state.barred & ~leaves) | (at & depends),
        steps=state.steps + go.astype(jnp.int32),
        busy=some,
        exchange=exchange_of(row, column, state.support, at, go),
    )
