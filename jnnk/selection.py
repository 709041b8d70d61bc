"""From scores to decisions: which of a set of kernels or filters stay.

Every function takes scores of which more is better and returns booleans, True where kept. A score
of NaN is below every threshold and ranks below every other score.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Schedule = Callable[[int], float]
"""A keep-rate for each step."""


def above_threshold(magnitudes: jax.Array, threshold: float | jax.Array) -> jax.Array:
    """Keep what reaches an absolute threshold.

    Args:
        magnitudes: scores in the unit of the weights (`conv_scores.kernel_magnitudes`), any shape.
        threshold: scalar, in the same unit.

    Returns:
        bool, the shape of ``magnitudes``.
    """
    return magnitudes >= threshold


def contributes(scores: jax.Array, share: float | jax.Array) -> jax.Array:
    """Keep the kernels that hold at least a share of their filter's summed score.

    The authors' ``weight_contrib`` divides the mean absolute weight of a kernel by the *sum* of the
    filter's absolute weights, so its shares add up to ``1 / (h w)``; here those of every criterion
    add up to 1, and their threshold ``t`` is ``h w t`` here.

    Args:
        scores: raw scores ``(Cin, Cout)``.
        share: scalar in [0, 1].

    Returns:
        bool ``(Cin, Cout)``; all False for a filter whose scores are all zero.
    """
    total = jnp.nansum(scores, axis=0, keepdims=True)
    return jnp.where(total > 0, scores / jnp.where(total > 0, total, 1), 0) >= share


def keep_largest(scores: jax.Array, num_pruned: int | jax.Array) -> jax.Array:
    """Prune the ``num_pruned`` smallest scores along the first axis.

    Args:
        scores: ``(n, ...)``, not negative.
        num_pruned: scalar; of equal scores the earlier one is pruned first.

    Returns:
        bool ``(n, ...)``.
    """
    # NaN below every score, -inf (already pruned) below NaN.
    order = jnp.argsort(jnp.where(jnp.isnan(scores), -1, scores), axis=0)
    return jnp.argsort(order, axis=0) >= num_pruned


def num_pruned(count: int, keep_rate: float) -> int:
    """Number of ``count`` items that a keep-rate prunes, rounded down as the authors do.

    Args:
        count: number of items.
        keep_rate: share kept, in [0, 1].

    Returns:
        The number pruned.

    Raises:
        ValueError: if ``keep_rate`` is outside [0, 1].
    """
    if not 0 <= keep_rate <= 1:
        raise ValueError(f"keep_rate: expected a share in [0, 1], got {keep_rate}")
    return int(count * (1.0 - keep_rate))


def one_shot_schedule(keep_rate: float, *, start: int = 0) -> Schedule:
    """Keep everything before ``start`` and ``keep_rate`` from then on.

    Args:
        keep_rate: share kept.
        start: step of the one pruning.

    Returns:
        The keep-rate as a function of the step.
    """
    return lambda step: keep_rate if step >= start else 1.0


def cubic_schedule(keep_rate: float, *, start: int, stop: int, initial: float = 1.0) -> Schedule:
    """Gradual pruning along a cubic: fast at first, slow near the end.

    Zhu & Gupta, "To prune, or not to prune" (arXiv 1710.01878), equation 1.

    Args:
        keep_rate: share kept from ``stop`` on.
        start: last step at which ``initial`` is kept.
        stop: first step at which ``keep_rate`` is reached.
        initial: share kept up to ``start``.

    Returns:
        The keep-rate as a function of the step.

    Raises:
        ValueError: if ``stop`` is not after ``start``.
    """
    if stop <= start:
        raise ValueError(f"stop: expected a step after start={start}, got {stop}")

    def schedule(step: int) -> float:
        remaining = 1 - min(max((step - start) / (stop - start), 0.0), 1.0)
        return keep_rate + (initial - keep_rate) * remaining**3

    return schedule
