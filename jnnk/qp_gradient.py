"""First phase: projected gradients guess the supports, conjugate gradients the weights.

G of nearest neighbours is close to a constant plus a diagonal, so steps are taken in the metric
``M = diag(m) + b 11'`` with b the mean off-diagonal entry and ``m`` the row sums of ``|G - b|``:
by Gershgorin M - G is positive semi-definite, so a step of length 1 never overshoots.
Problems lie along the last axis: vectors are (K, B), and every operation runs over problems.
"""

import jax
import jax.numpy as jnp

from jnnk.blocks import map_blocks

GRADIENT_STEPS_SMALL, GRADIENT_STEPS_LARGE = 12, 20
CONJUGATE_STEPS_SMALL, CONJUGATE_STEPS_LARGE = 10, 14
_SMALL = 30


def find_support(gram: jax.Array, cross: jax.Array, *, chunk: int) -> tuple[jax.Array, jax.Array]:
    """Approximate solutions of all problems.

    Args:
        gram: (B, K, K).
        cross: (B, K).
        chunk: problems solved together.

    Returns:
        Weights (B, K), at least 0, and int32 (B,) products with ``gram`` spent.
    """
    small = cross.shape[1] <= _SMALL
    gradient_steps = GRADIENT_STEPS_SMALL if small else GRADIENT_STEPS_LARGE
    conjugate_steps = CONJUGATE_STEPS_SMALL if small else CONJUGATE_STEPS_LARGE

    def block(inputs):
        gram, cross = inputs[0], inputs[1].T
        metric = metric_of(gram)
        weights = projected_gradient(gram, cross, metric, gradient_steps)
        weights = conjugate_gradient(gram, cross, metric, weights, conjugate_steps)
        return jnp.maximum(weights, 0).T

    weights = map_blocks(block, (gram, cross), block_size=chunk)
    spent = 3 + gradient_steps + conjugate_steps
    return weights, jnp.full(cross.shape[:1], spent, jnp.int32)


def product(gram: jax.Array, vectors: jax.Array) -> jax.Array:
    """``G w`` for gram (B, K, K) and vectors (K, B)."""
    return jnp.einsum("bij,jb->ib", gram, vectors, precision=jax.lax.Precision.HIGHEST)


def metric_of(gram: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The diagonal (K, B) and the constant (B,) of the metric of each problem."""
    size, dtype = gram.shape[1], gram.dtype
    ones = jnp.ones((size, gram.shape[0]), dtype)
    trace = jnp.sum(jnp.diagonal(gram, axis1=1, axis2=2), axis=1)
    total = jnp.sum(product(gram, ones), axis=0)
    constant = jnp.maximum((total - trace) / max(size * (size - 1), 1), 0)
    diagonal = product(jnp.abs(gram - constant[:, None, None]), ones)
    return jnp.where(diagonal > 0, diagonal, 1), constant


def projected_gradient(gram, cross, metric, num_steps: int) -> jax.Array:
    """Accelerated projected gradient from 0 with restarts; weights (K, B)."""
    diagonal, constant = metric
    inverse = 1 / diagonal

    def step(_, carry):
        weights, point, momentum, total = carry
        gradient = product(gram, point) - cross
        # The minimiser of the model is max(0, (pull - constant * total) / diagonal) with
        # total its own sum: an increasing piecewise linear equation, two Newton steps.
        pull = diagonal * point + constant * jnp.sum(point, axis=0) - gradient
        scaled = pull * inverse
        for _ in range(2):
            active = pull > constant * total
            total = jnp.sum(jnp.where(active, scaled, 0), axis=0) / (
                1 + constant * jnp.sum(jnp.where(active, inverse, 0), axis=0)
            )
        new = jnp.maximum(scaled - constant * total * inverse, 0)
        move = new - weights
        back = point - new
        uphill = (
            jnp.sum(diagonal * back * move, axis=0)
            + constant * jnp.sum(back, axis=0) * jnp.sum(move, axis=0)
        ) > 0
        momentum = jnp.where(uphill, 1, momentum)
        grown = 0.5 * (1 + jnp.sqrt(1 + 4 * momentum * momentum))
        return new, new + (momentum - 1) / grown * move, grown, total

    zeros = jnp.zeros_like(cross)
    ones = jnp.ones_like(cross[0])
    return jax.lax.fori_loop(0, num_steps, step, (zeros, zeros, ones, 0 * ones))[0]


def conjugate_gradient(gram, cross, metric, weights, num_steps: int) -> jax.Array:
    """Preconditioned conjugate gradients on the support of ``weights`` (K, B).

    Returns:
        (K, B), zero off that support; entries on it may be negative.
    """
    constant = metric[1]
    diagonal = jnp.diagonal(gram, axis1=1, axis2=2).T - constant
    inside = (weights > 0).astype(cross.dtype)
    inverse = inside / jnp.where(diagonal > 0, diagonal, 1)
    coupling = constant / (1 + constant * jnp.sum(inverse, axis=0))

    def precondition(residual):
        scaled = inverse * residual
        return scaled - coupling * jnp.sum(scaled, axis=0) * inverse

    def step(_, carry):
        weights, residual, direction, energy = carry
        applied = product(gram, direction)
        curvature = jnp.sum(direction * applied, axis=0)
        go = (curvature > 0) & (energy > 0)
        length = jnp.where(go, energy / jnp.where(go, curvature, 1), 0)
        weights = weights + length * direction
        residual = residual - length * applied * inside
        ahead = precondition(residual)
        new = jnp.sum(residual * ahead, axis=0)
        direction = ahead + jnp.where(go, new / jnp.where(go, energy, 1), 0) * direction
        return weights, residual, direction, new

    residual = (cross - product(gram, weights)) * inside
    direction = precondition(residual)
    energy = jnp.sum(residual * direction, axis=0)
    start = (weights, residual, direction, energy)
    return jax.lax.fori_loop(0, num_steps, step, start)[0]
