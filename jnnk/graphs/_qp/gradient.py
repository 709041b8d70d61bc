"""First phase: projected gradients guess the supports, conjugate gradients the weights.

G of nearest neighbours is close to a constant plus a diagonal, so steps are taken in the metric
``M = diag(m) + b 11'`` with b the mean off-diagonal entry and ``m`` the row sums of ``|G - b|``:
by Gershgorin M - G is positive semi-definite, no power iteration needed.
Problems lie along the last axis: vectors are (K, B), and every operation runs over problems.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jnnk._core.blocks import map_blocks
from jnnk._core.precision import contract
from jnnk.graphs._qp.active_set import Solved, solved
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

# Projected gradient steps come in bursts, until a burst leaves nearly all supports as they were.
_BURST, _MAX_BURSTS = 4, 8
_UNSETTLED = 1 / 8
# Accelerated steps are stable up to 4/3 of the length that M alone makes safe.
_SHORTENED = 0.76
# Larger problems are cut down to the most promising candidates once few have weight.
_LARGE, _SCREENED, _SCREENING_BURSTS = 30, 24, 2
# Conjugate gradient steps for one support, fewer once nearly all problems are solved to rounding.
_CONJUGATE_STEPS = 16
_UNSOLVED = 1 / 32
# What conjugate gradients may leave of the probe on a support that is regular.
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


def find_support(gram: jax.Array, cross: jax.Array) -> Solved:
    """Solutions of the problems that the metric suits; the others are left undone.

    Args:
        gram: (B, K, K).
        cross: (B, K).

    Returns:
        Done where the optimality conditions hold to rounding on a support that is surely regular
        and no candidate is near to changing sides: so it is the only solution.
    """

    def block(inputs):
        posed = pose(*inputs)
        gram, cross, size = posed.gram, posed.cross.T, posed.cross.shape[1]
        few = _SCREENED if size > _LARGE else 0
        metric = metric_of(gram)
        weights, spent = projected_gradient(gram, cross, metric, jnp.zeros_like(cross), few=few)
        solve = _conjugate
        if few:
            solve = lambda *problem: jax.lax.cond(  # noqa: E731
                crowded(weights, few, asked(cross)), _conjugate, _screened, *problem
            )
        trial = solve(gram, cross, metric, weights)
        return _judged(posed, metric[1], trial._replace(spent=2 + spent + trial.spent))

    return map_blocks(block, (gram, cross), block_size=chunk_size(cross.shape[1]))


def _judged(posed: Posed, constant, trial: Trial) -> Solved:
    """What is known of problems with trial weights."""
    gram, cross = posed.gram, posed.cross.T
    eps = jnp.finfo(cross.dtype).eps
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


def crowded(weights: jax.Array, few: int, counted: jax.Array) -> jax.Array:
    """Whether more than a few of the problems (K, B) have more than ``few`` positive weights."""
    return share_with_more(weights > 0, few, counted) > _UNSETTLED


def _conjugate(gram, cross, metric, weights) -> Trial:
    """By conjugate gradients on the support of weights (K, B)."""
    return conjugate_gradient(gram, cross, metric[1], weights, weights > 0)


def _screened(gram, cross, metric, weights) -> Trial:
    """As `_conjugate`, on the candidates of the largest pull alone, with supports corrected once.

    What it leaves out wrongly, the second phase lets in.
    """
    pull = metric[0] * weights + cross - product(gram, weights)
    kept = jax.lax.top_k(pull.T, _SCREENED)[1]
    take = jax.vmap(lambda rows, indices: rows[indices])
    gram = take(take(gram, kept).mT, kept)
    cross, start = take(cross.T, kept).T, take(weights.T, kept).T
    metric = metric_of(gram)
    inner, spent = projected_gradient(gram, cross, metric, start)
    margin = MARGIN * jnp.finfo(cross.dtype).eps * jnp.max(jnp.abs(cross), axis=0)

    def correct(_, trial):
        start = jnp.maximum(trial.weights, 0)
        enters = (trial.weights == 0) & (cross - product(gram, start) > margin)
        new = conjugate_gradient(gram, cross, metric[1], start, (start > 0) | enters)
        return new._replace(spent=trial.spent + 1 + new.spent)

    # Those products are with matrices of a quarter the size or less, but count.
    first = Trial(inner, jnp.ones_like(margin), spent + 3)
    trial = jax.lax.fori_loop(0, 2, correct, first)
    put = jax.vmap(lambda row, indices, values: row.at[indices].set(values))
    return trial._replace(weights=put(jnp.zeros_like(weights.T), kept, trial.weights.T).T)


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


def asked(cross: jax.Array) -> jax.Array:
    """Which problems (B,) of cross (K, B) ask for anything: the answer of the others is 0."""
    return jnp.any(cross != 0, axis=0)


def share_with_more(flags: jax.Array, number: int, counted: jax.Array) -> jax.Array:
    """The share () of the problems counted, bool (B,), with more flags, bool (K, B)."""
    more = total_of(flags.astype(jnp.float32)) > number
    return jnp.sum(more & counted) / jnp.maximum(jnp.sum(counted), 1)


def metric_of(gram: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The diagonal (K, B) and the constant (B,), at least 0, of the metric of each problem."""
    count, size, _ = gram.shape
    ones = jnp.ones((size, count), gram.dtype)
    trace = jnp.sum(jnp.diagonal(gram, axis1=1, axis2=2), axis=1)
    # Sums as products with ones: those use vector instructions on a CPU.
    every = jnp.ones(size**2, gram.dtype)
    total = jnp.matmul(gram.reshape(count, -1), every, precision=jax.lax.Precision.HIGHEST)
    constant = jnp.maximum((total - trace) / max(size * (size - 1), 1), 0)
    diagonal = _SHORTENED * product(jnp.abs(gram - constant[:, None, None]), ones)
    return jnp.where(diagonal > 0, diagonal, 1), constant


def projected_gradient(gram, cross, metric, start, *, few=0) -> tuple[jax.Array, jax.Array]:
    """Accelerated projected gradient with restarts.

    Args:
        gram: (B, K, K).
        cross: (K, B).
        metric: of `metric_of`.
        start: (K, B), at least 0.
        few: stop early once nearly all problems have no more than this many positive weights.

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
    counted = asked(cross)

    def step(_, carry):
        weights, point, momentum, total = carry
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
        return new, new + (momentum - 1) / grown * move, grown, total

    def burst(carry):
        bursts, _, state = carry
        before = state[0] > 0
        state = jax.lax.fori_loop(0, _BURST, step, state)
        changed = (state[0] > 0) != before
        unsettled = share_with_more(changed, 0, counted) > _UNSETTLED
        if few:
            unsettled &= (bursts + 1 < _SCREENING_BURSTS) | crowded(state[0], few, counted)
        return bursts + 1, unsettled, state

    total = total_of(start)
    bursts, _, (weights, *_) = jax.lax.while_loop(
        lambda carry: carry[1] & (carry[0] < _MAX_BURSTS),
        burst,
        (jnp.zeros((), jnp.int32), jnp.array(True), (start, start, jnp.ones_like(total), total)),
    )
    return weights, bursts * _BURST


def conjugate_gradient(gram, cross, constant, weights, support) -> Trial:
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
    eps = jnp.finfo(cross.dtype).eps

    def twice(first, second):
        return jnp.concatenate([first, second], axis=-1)

    diagonal = jnp.diagonal(gram, axis1=1, axis2=2).T - constant
    inverse = jnp.where(support, 1 / jnp.where(diagonal > 0, diagonal, 1), 0)
    # Sherman-Morrison.
    coupling = constant / (1 + constant * total_of(inverse))
    inside, inverse, coupling = (twice(x, x) for x in (support, inverse, coupling))
    margin = 8 * eps * jnp.max(jnp.abs(cross), axis=0)
    margin = twice(margin, jnp.full_like(margin, _REACHED))
    most = _UNSOLVED * jnp.sum(asked(cross).astype(cross.dtype))

    def precondition(residual):
        scaled = inverse * residual
        return scaled - coupling * total_of(scaled) * inverse

    def unsolved(residual):
        far = total_of((jnp.abs(residual) > margin).astype(cross.dtype))
        return jnp.sum((far[:count] + far[count:] > 0).astype(cross.dtype)) > most

    def step(carry):
        number, _, solution, residual, direction, energy = carry
        applied = twice(product(gram, direction[:, :count]), product(gram, direction[:, count:]))
        curvature = total_of(direction * applied)
        go = (curvature > 0) & (energy > 0)
        length = jnp.where(go, energy / jnp.where(go, curvature, 1), 0)
        solution = solution + length * direction
        residual = residual - jnp.where(inside, length * applied, 0)
        ahead = precondition(residual)
        new = total_of(residual * ahead)
        direction = ahead + jnp.where(go, new / jnp.where(go, energy, 1), 0) * direction
        return number + 1, unsolved(residual), solution, residual, direction, new

    right = twice(
        cross - product(gram, weights), jnp.broadcast_to(probe(size, cross.dtype), cross.shape)
    )
    right = jnp.where(inside, right, 0)
    direction = precondition(right)
    start = jnp.int32(0), unsolved(right), jnp.zeros_like(right), right, direction
    number, _, solution, residual, *_ = jax.lax.while_loop(
        lambda carry: carry[1] & (carry[0] < _CONJUGATE_STEPS),
        step,
        (*start, total_of(right * direction)),
    )
    left = jnp.max(jnp.abs(residual[:, count:]), axis=0)
    amplified = amplification(solution[:, count:])
    return Trial(
        weights + solution[:, :count],
        jnp.where(left <= _REACHED, amplified, jnp.inf),
        2 * number + 1,
    )
