"""Accelerated projected gradient in the metric "diagonal + constant", which guesses supports.

G of nearest neighbours is close to a constant plus a diagonal, so steps are taken in the metric
``M = diag(m) + b 11'`` with b the mean off-diagonal entry and ``m`` the row sums of ``|G - b|``:
by Gershgorin M - G is positive semi-definite, no power iteration needed.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jnnk._core import typed_jax
from jnnk.graphs._qp.sums import is_nontrivial, product, total_of

# Projected gradient steps come in bursts, until a burst leaves nearly all supports as they were.
_BURST, _MAX_BURSTS = 4, 8
_UNSETTLED = 1 / 8
# Accelerated steps are stable up to 4/3 of the length that M alone makes safe.
_SHORTENED = 0.76
# Where candidates are to be screened, bursts go on until that is of use, but at least for two.
_SCREENING_BURSTS = 2


class Metric(NamedTuple):
    """The metric ``diag(m) + b 11'`` of B problems.

    Attributes:
        diagonal: (K, B), m, positive.
        constant: (B,), b, at least 0.
    """

    diagonal: jax.Array
    constant: jax.Array


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
