"""First phase: projected gradients guess the supports, conjugate gradients the weights.

G of nearest neighbours is close to a constant plus a diagonal, so steps are taken in the metric
``M = diag(m) + b 11'`` with b the mean off-diagonal entry and ``m`` the row sums of ``|G - b|``:
by Gershgorin M - G is positive semi-definite, no power iteration needed.
Problems lie along the last axis: vectors are (K, B), and every operation runs over problems.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jnnk._core import typed_jax
from jnnk._core.blocks import map_blocks
from jnnk._core.precision import contract
from jnnk.graphs._qp.certificate import (
    MARGIN,
    WIDE,
    amplification,
    certify,
    is_ambiguous,
    probe,
    scales_of,
)
from jnnk.graphs._qp.chunks import chunk_size
from jnnk.graphs._qp.scaling import Posed, pose
from jnnk.graphs._qp.solved import Solved, solved

# Projected gradient steps come in bursts, until a burst leaves nearly all supports as they were.
_BURST, _MAX_BURSTS = 4, 8
_UNSETTLED = 1 / 8
# Accelerated steps are stable up to 4/3 of the length that M alone makes safe.
_SHORTENED = 0.76
# Problems larger than _LARGE are cut down to the _SCREENED most promising candidates, once nearly
# all have no more positive weights than that, but not before the second burst.
_LARGE, _SCREENED, _SCREENING_BURSTS = 30, 24, 2
# Conjugate gradient steps for one support, fewer once nearly all problems are solved to rounding.
_CONJUGATE_STEPS = 16
_UNSOLVED = 1 / 32
# What conjugate gradients may leave of the probe on a support that is regular.
_REACHED = 4e-3


class Metric(NamedTuple):
    """The metric ``diag(m) + b 11'`` of B problems.

    Attributes:
        diagonal: (K, B), m, positive.
        constant: (B,), b, at least 0.
    """

    diagonal: jax.Array
    constant: jax.Array


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


def find_support(gram: jax.Array, cross: jax.Array) -> Solved:
    """First phase: projected gradients find supports, conjugate gradients solve on them.

    What that does not solve for certain is left undone, for `active_set.finish`.

    Args:
        gram: (B, K, K).
        cross: (B, K).

    Returns:
        Done where the optimality conditions hold to rounding on a support that is surely regular
        and no candidate is near to changing sides: so it is the only solution.
    """

    def block(inputs: tuple[jax.Array, jax.Array]) -> Solved:
        posed = pose(*inputs)
        gram, cross = posed.gram, posed.cross.T
        screen_size = _SCREENED if len(cross) > _LARGE else None
        metric = metric_of(gram)
        weights, spent = projected_gradient(
            gram, cross, metric, jnp.zeros_like(cross), screen_size=screen_size
        )
        trial = _on_supports(gram, cross, metric, weights, screen_size=screen_size)
        return _judged(posed, metric.constant, trial._replace(spent=2 + spent + trial.spent))

    return map_blocks(block, (gram, cross), block_size=chunk_size(cross.shape[1]))


def _judged(posed: Posed, constant: jax.Array, trial: Trial) -> Solved:
    """What is known of problems with trial weights."""
    gram, cross = posed.gram, posed.cross.T
    eps = typed_jax.finfo(cross.dtype).eps
    weights, scales = jnp.maximum(trial.weights, 0), scales_of(gram, cross)
    # |G - b|, which the metric is made of, and b bound |G|.
    absolute = product(jnp.abs(gram - constant[:, None, None]), weights)
    absolute += constant * total_of(weights)
    certificate = certify(gram, cross, weights, absolute, scales)
    known = cross, weights, certificate, scales, trial.amplified
    done = ~is_ambiguous(*known, units=MARGIN, roundings=1) & posed.bounded
    done &= certificate.residual <= MARGIN * eps * scales.size
    # The second phase makes anew what the bound is too wide for.
    done &= certificate.bound <= WIDE * eps * scales.size
    steps = jnp.full(cross.shape[1], trial.spent + 2, jnp.int32)
    ambiguous = is_ambiguous(*known) | ~done
    return solved(posed, weights, certificate, ambiguous=ambiguous, steps=steps, done=done)


def _on_supports(
    gram: jax.Array,
    cross: jax.Array,
    metric: Metric,
    weights: jax.Array,
    *,
    screen_size: int | None,
) -> Trial:
    """Problems solved on the supports of weights (K, B), by screening where that is of use.

    Args:
        gram: (B, K, K).
        cross: (K, B).
        metric: of the problems.
        weights: (K, B), of `projected_gradient`.
        screen_size: candidates that screening keeps; None never screens.
    """
    if screen_size is None:
        return _conjugate(gram, cross, metric, weights)
    return typed_jax.cond(
        is_crowded(weights, screen_size, is_nontrivial(cross)),
        _conjugate,
        functools.partial(_screened, screen_size=screen_size),
        *(gram, cross, metric, weights),
    )


def _conjugate(gram: jax.Array, cross: jax.Array, metric: Metric, weights: jax.Array) -> Trial:
    """By conjugate gradients on the support of weights (K, B)."""
    return conjugate_gradient(gram, cross, metric.constant, weights, weights > 0)


def _screened(
    gram: jax.Array, cross: jax.Array, metric: Metric, weights: jax.Array, *, screen_size: int
) -> Trial:
    """As `_conjugate`, on the candidates of the largest pull alone, with supports corrected twice.

    What it leaves out wrongly, the second phase lets in.
    """
    pull = metric.diagonal * weights + cross - product(gram, weights)
    kept = jax.lax.top_k(pull.T, screen_size)[1]

    def rows_of(rows: jax.Array, indices: jax.Array) -> jax.Array:
        return rows[indices]

    take = jax.vmap(rows_of)
    gram = take(take(gram, kept).mT, kept)
    cross, start = take(cross.T, kept).T, take(weights.T, kept).T
    metric = metric_of(gram)
    inner, spent = projected_gradient(gram, cross, metric, start, screen_size=None)
    margin = MARGIN * typed_jax.finfo(cross.dtype).eps * jnp.max(jnp.abs(cross), axis=0)

    def correct(_: jax.Array, trial: Trial) -> Trial:
        start = jnp.maximum(trial.weights, 0)
        enters = (trial.weights == 0) & (cross - product(gram, start) > margin)
        new = conjugate_gradient(gram, cross, metric.constant, start, (start > 0) | enters)
        return new._replace(spent=trial.spent + 1 + new.spent)

    # Those products are with smaller matrices, but count.
    first = Trial(inner, jnp.ones_like(margin), spent + 3)
    trial = typed_jax.fori_loop(0, 2, correct, first)

    def put(row: jax.Array, indices: jax.Array, values: jax.Array) -> jax.Array:
        return row.at[indices].set(values)

    return trial._replace(weights=jax.vmap(put)(jnp.zeros_like(weights.T), kept, trial.weights.T).T)


def product(gram: jax.Array, vectors: jax.Array) -> jax.Array:
    """``G w`` for gram (B, K, K) and vectors (K, B)."""
    return contract("bij,jb->ib", gram, vectors)


def total_of(vectors: jax.Array) -> jax.Array:
    """The sum (B,) over the entries of vectors (K, B).

    As a product with ones: XLA's reductions take twice the time of it on a CPU, and threads that
    two programs at once then share.
    """
    ones = jnp.ones(len(vectors), vectors.dtype)
    return jnp.matmul(ones, vectors, precision=jax.lax.Precision.HIGHEST)


def is_nontrivial(cross: jax.Array) -> jax.Array:
    """Which problems (B,) have a cross (K, B) that is not 0: the solution of the others is 0."""
    return jnp.any(cross != 0, axis=0)


def share_with_more(flags: jax.Array, number: int, counted: jax.Array) -> jax.Array:
    """The share () of the problems counted, bool (B,), with more than ``number`` flags (K, B)."""
    more = total_of(flags.astype(jnp.float32)) > number
    return jnp.sum(more & counted) / jnp.maximum(jnp.sum(counted), 1)


def is_crowded(weights: jax.Array, screen_size: int, counted: jax.Array) -> jax.Array:
    """Whether too many problems have more positive weights (K, B) than screening keeps.

    Args:
        weights: (K, B).
        screen_size: candidates that screening keeps.
        counted: bool (B,), the problems that count.
    """
    return share_with_more(weights > 0, screen_size, counted) > _UNSETTLED


def metric_of(gram: jax.Array) -> Metric:
    """The `Metric` of problems (B, K, K)."""
    count, size, _ = gram.shape
    ones = jnp.ones((size, count), gram.dtype)
    trace = jnp.sum(typed_jax.diagonals(gram), axis=1)
    # Sums as products with ones: those use vector instructions on a CPU.
    every = jnp.ones(size**2, gram.dtype)
    total = jnp.matmul(gram.reshape(count, -1), every, precision=jax.lax.Precision.HIGHEST)
    constant = jnp.maximum((total - trace) / max(size * (size - 1), 1), 0)
    diagonal = _SHORTENED * product(jnp.abs(gram - constant[:, None, None]), ones)
    return Metric(jnp.where(diagonal > 0, diagonal, 1), constant)


class _Descent(NamedTuple):
    """Accelerated projected gradient on B problems, between two steps.

    Attributes:
        weights: (K, B), at least 0.
        point: (K, B), the weights extrapolated, where the next gradient is taken.
        momentum: (B,), at least 1, which it is after a restart.
        total: (B,), the sum of the weights as the last step's equation had it.
    """

    weights: jax.Array
    point: jax.Array
    momentum: jax.Array
    total: jax.Array


class _Bursts(NamedTuple):
    """Projected gradient on B problems, between two bursts of steps.

    Attributes:
        number: int32 (), bursts made.
        unsettled: bool (), whether another one is needed.
        descent: after these bursts.
    """

    number: jax.Array
    unsettled: jax.Array
    descent: _Descent


def projected_gradient(
    gram: jax.Array, cross: jax.Array, metric: Metric, start: jax.Array, *, screen_size: int | None
) -> tuple[jax.Array, jax.Array]:
    """Accelerated projected gradient with restarts, until nearly all supports stay as they are.

    Args:
        gram: (B, K, K).
        cross: (K, B).
        metric: of the problems.
        start: (K, B), at least 0.
        screen_size: stops early once nearly all problems have no more than so many positive
            weights; None does not.

    Returns:
        Weights (K, B) and int32 () products spent.
    """
    diagonal, constant = metric
    inverse = 1 / diagonal
    # The metric minus G, over the diagonal: one product for all that is linear in a step.
    eye = jnp.eye(len(cross), dtype=cross.dtype)
    remainder = diagonal.T[:, :, None] * eye[None] + constant[:, None, None] - gram
    remainder = remainder * inverse.T[:, :, None]
    offset, coupling = cross * inverse, constant * inverse
    counted = is_nontrivial(cross)

    def step(_: jax.Array, descent: _Descent) -> _Descent:
        weights, point, momentum, total = descent
        # The minimiser of the model is max(0, scaled - coupling * total) with total its own sum:
        # an increasing piecewise linear equation, one Newton step from the last.
        # The offset first: a sum is laid out as its first term, and of the product's transposed
        # layout a program for several devices would make other fusions, and round otherwise.
        scaled = offset + product(remainder, point)
        active = scaled > coupling * total
        total = total_of(jnp.where(active, scaled, 0)) / (
            1 + total_of(jnp.where(active, coupling, 0))
        )
        new = jnp.maximum(scaled - coupling * total, 0)
        move = new - weights
        uphill = total_of(diagonal * (point - new) * move) > 0
        momentum = jnp.where(uphill, 1, momentum)
        grown = 0.5 * (1 + jnp.sqrt(1 + 4 * momentum * momentum))
        return _Descent(new, new + (momentum - 1) / grown * move, grown, total)

    def burst(carry: _Bursts) -> _Bursts:
        number, _, descent = carry
        before = descent.weights > 0
        descent = typed_jax.fori_loop(0, _BURST, step, descent)
        changed = (descent.weights > 0) != before
        unsettled = share_with_more(changed, 0, counted) > _UNSETTLED
        if screen_size is not None:
            is_early = number + 1 < _SCREENING_BURSTS
            unsettled &= is_early | is_crowded(descent.weights, screen_size, counted)
        return _Bursts(number + 1, unsettled, descent)

    def is_left(bursts: _Bursts) -> jax.Array:
        return bursts.unsettled & (bursts.number < _MAX_BURSTS)

    total = total_of(start)
    first = _Descent(start, start, jnp.ones_like(total), total)
    end = jax.lax.while_loop(
        is_left, burst, _Bursts(jnp.zeros((), jnp.int32), jnp.array(True), first)
    )
    return end.descent.weights, end.number * _BURST


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
        return carry[1] & (carry[0] < _CONJUGATE_STEPS)

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
