"""Second phase: supports made exact, on the problems that need it.

Block principal pivoting (Kim and Park 2011, doi:10.1137/110821172): solve on the support, let all
violators change sides at once, and one at a time where that stops helping, which ends on every
non-singular problem.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jnnk.qp_linear import eliminate

# Problems packed together: few are left, and an elimination is dear.
_CHUNK = 16
_PATIENCE = 3
# Added to the diagonal in eliminations, in units of rounding: 1e-6 of it in float32.
_RIDGE = 8


class Refined(NamedTuple):
    """Problems (B,) under refinement.

    Attributes:
        weights: (B, K), the best so far, at least 0.
        residual: (B,), largest violation of the optimality conditions by those weights.
        trial: (B, K), the last solution on a support, 0 off it.
        support: bool (B, K), the one to try next.
        fewest: int32 (B,), the fewest violators seen.
        patience: int32 (B,), tries left before violators change sides singly.
        steps: int32 (B,), products with gram.
        done: bool (B,).
    """

    weights: jax.Array
    residual: jax.Array
    trial: jax.Array
    support: jax.Array
    fewest: jax.Array
    patience: jax.Array
    steps: jax.Array
    done: jax.Array


def refine_support(
    gram: jax.Array, cross: jax.Array, trial: jax.Array, *, max_steps: int
) -> Refined:
    """Weights that satisfy the optimality conditions to rounding, from approximate ones.

    Args:
        gram: (B, K, K).
        cross: (B, K).
        trial: (B, K), as `jnnk.qp_gradient.find_support` returns them.
        max_steps: bound on products with ``gram`` per problem.

    Returns:
        The final state; a problem is not done where the bound stopped it.
    """
    count, size = cross.shape
    state = Refined(
        weights=jnp.zeros_like(cross),
        residual=jnp.full((count,), jnp.inf, cross.dtype),
        trial=trial,
        support=trial != 0,
        fewest=jnp.full((count,), size + 1, jnp.int32),
        patience=jnp.full((count,), _PATIENCE, jnp.int32),
        steps=jnp.zeros((count,), jnp.int32),
        done=jnp.zeros((count,), bool),
    )
    state = _judge(gram, cross, state, exact=False)
    chunk = min(_CHUNK, count)

    def pending(state):
        return ~state.done & (state.steps < max_steps)

    def once(state):
        waiting, rows = jax.lax.top_k(pending(state).astype(jnp.float32), chunk)
        matrix, vector, part = jax.tree.map(lambda x: x[rows], (gram, cross, state))
        part = _judge(matrix, vector, _attempt(matrix, vector, part), exact=True)
        # Where fewer are left than a chunk holds, the others stay as they are.
        rows = jnp.where(waiting > 0, rows, count)
        return jax.tree.map(lambda x, y: x.at[rows].set(y, mode="drop"), state, part)

    return jax.lax.while_loop(lambda state: jnp.any(pending(state)), once, state)


def _attempt(gram, cross, state):
    """The state with the solution on its support as the trial."""
    # The ridge makes every problem one that single changes of side solve, and adds less to the
    # optimality conditions than rounding allows.
    ridge = _RIDGE * jnp.finfo(cross.dtype).eps * jnp.diagonal(gram, axis1=1, axis2=2)
    size = cross.shape[1]
    ridged = gram + ridge[:, :, None] * jnp.eye(size, dtype=gram.dtype)
    trial = eliminate(ridged, cross, state.support)
    # An elimination costs about as much as K / 3 products with gram.
    return state._replace(trial=trial, steps=state.steps + size // 3)


def _judge(gram, cross, state, *, exact):
    """Takes the trial where it is better, and decides who changes sides.

    An exact trial without violators is the answer, however large rounding leaves its residual.
    """
    weights = jnp.maximum(state.trial, 0)
    gradient = cross - _apply(gram, weights)
    violation = jnp.where(weights > 0, jnp.abs(gradient), jnp.maximum(gradient, 0))
    residual = jnp.max(violation, axis=1)
    # To rounding, whatever tolerance is asked for: at 1e-5 supports are not exact yet.
    margin = 16 * jnp.finfo(cross.dtype).eps * jnp.max(jnp.abs(cross), axis=1)
    leaves = state.trial < 0
    enters = (weights == 0) & ~leaves & (gradient > margin[:, None])
    wrong = leaves | enters
    number = jnp.sum(wrong, axis=1, dtype=jnp.int32)
    patience = jnp.where(number < state.fewest, _PATIENCE, state.patience - 1)
    order = jnp.arange(cross.shape[1])
    last = jnp.max(jnp.where(wrong, order, -1), axis=1)[:, None]
    flips = wrong & ((patience >= 0)[:, None] | (order == last))
    better = residual < state.residual
    return state._replace(
        weights=jnp.where(better[:, None], weights, state.weights),
        residual=jnp.where(better, residual, state.residual),
        support=(state.trial != 0) ^ flips,
        fewest=jnp.minimum(number, state.fewest),
        patience=patience,
        steps=state.steps + 1,
        # Also where it is NaN: nothing helps such a problem.
        done=~(residual > margin) | (exact & (number == 0)),
    )


def _apply(gram, weights):
    return jnp.einsum("bij,bj->bi", gram, weights, precision=jax.lax.Precision.HIGHEST)
