"""Second phase: supports made exact, on the problems that need it.

Block principal pivoting (Kim and Park 2011, doi:10.1137/110821172): solve on the support, let all
violators change sides at once, and one at a time where that stops helping, which ends on every
non-singular problem.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jnnk.qp_linear import eliminate

_PATIENCE = 3


class _State(NamedTuple):
    """Problems (B,) under refinement."""

    weights: jax.Array  # (B, K), the best so far
    residual: jax.Array  # (B,), of those weights
    support: jax.Array  # bool (B, K), to try next
    fewest: jax.Array  # int32 (B,), the fewest violators seen
    patience: jax.Array  # int32 (B,), tries left before violators change sides singly
    steps: jax.Array  # int32 (B,), products with gram
    done: jax.Array  # bool (B,)


def kkt_residual(gram: jax.Array, cross: jax.Array, weights: jax.Array):
    """Largest violation (B,) of the optimality conditions, and the scale ``max |cross|`` (B,)."""
    violation, scale = _violations(gram, cross, weights)[1:]
    return jnp.max(violation, axis=1), scale


def refine_support(
    gram: jax.Array, cross: jax.Array, weights: jax.Array, *, max_steps: int, chunk: int
) -> tuple[jax.Array, jax.Array]:
    """Weights that satisfy the optimality conditions to rounding, from approximate ones.

    Args:
        gram: (B, K, K).
        cross: (B, K).
        weights: (B, K), at least 0.
        max_steps: bound on products with ``gram`` per problem.
        chunk: unfinished problems that are packed together.

    Returns:
        Weights (B, K) and int32 (B,) products with ``gram`` spent.
    """
    count, size = cross.shape
    chunk = min(chunk, count)
    rounding = 16 * jnp.finfo(cross.dtype).eps
    gradient, violation, scale = _violations(gram, cross, weights)
    residual = jnp.max(violation, axis=1)
    state = _State(
        weights,
        residual,
        (weights > 0) | (gradient > 0),
        jnp.full((count,), size + 1, jnp.int32),
        jnp.full((count,), _PATIENCE, jnp.int32),
        jnp.ones((count,), jnp.int32),
        ~(residual > rounding * scale),  # also where it is NaN
    )
    order = jnp.arange(size)

    def attempt(gram, cross, state):
        solved = eliminate(gram, cross, state.support)
        solved = solved + eliminate(gram, cross - _apply(gram, solved), state.support)
        weights = jnp.maximum(solved, 0)
        violation, scale = _violations(gram, cross, weights)[1:]
        residual = jnp.max(violation, axis=1)
        better = residual < state.residual
        raw = cross - _apply(gram, solved)
        margin = (rounding * scale)[:, None]
        wrong = jnp.where(state.support, solved < 0, raw > margin)
        number = jnp.sum(wrong, axis=1, dtype=jnp.int32)
        fewer = number < state.fewest
        patience = jnp.where(fewer, _PATIENCE, state.patience - 1)
        last = jnp.max(jnp.where(wrong, order, -1), axis=1)[:, None]
        flip = wrong & ((patience >= 0)[:, None] | (order == last))
        steps = state.steps + 2 + size
        done = (residual <= rounding * scale) | (number == 0) | (steps + 2 + size > max_steps)
        return _State(
            jnp.where(better[:, None], weights, state.weights),
            jnp.where(better, residual, state.residual),
            state.support ^ flip,
            jnp.minimum(number, state.fewest),
            patience,
            steps,
            done,
        )

    def pack(state):
        # Unfinished problems first; finished ones that fill the chunk are not written back.
        rows = jnp.nonzero(~state.done, size=chunk, fill_value=count)[0]
        part = jax.tree.map(lambda x: x.at[rows].get(mode="fill", fill_value=0), state)
        filled = gram.at[rows].get(mode="fill", fill_value=0)
        part = attempt(filled, cross.at[rows].get(mode="fill", fill_value=0), part)
        return jax.tree.map(lambda x, y: x.at[rows].set(y, mode="drop"), state, part)

    state = jax.lax.while_loop(lambda s: ~jnp.all(s.done), pack, state)
    return state.weights, state.steps


def _apply(gram, weights):
    return jnp.einsum("bij,bj->bi", gram, weights, precision=jax.lax.Precision.HIGHEST)


def _violations(gram, cross, weights):
    """The negative gradient (B, K), violations (B, K), and the scale (B,)."""
    gradient = cross - _apply(gram, weights)
    violation = jnp.where(weights > 0, jnp.abs(gradient), jnp.maximum(gradient, 0))
    return gradient, violation, jnp.max(jnp.abs(cross), axis=1)
