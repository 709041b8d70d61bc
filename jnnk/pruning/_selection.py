"""From scores to decisions: which of a set of kernels or filters stay.

Every function takes scores of which more is better and returns booleans, True where kept. A score
of NaN is below every threshold and ranks below every other score.
"""

import fractions
import math
import numbers
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jnnk._core.whole_numbers import whole_number

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
    return (total > 0) & (scores / jnp.where(total > 0, total, 1) >= share)


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


def check_share(name: str, share: float) -> None:
    """Refuse what is no share.

    Args:
        name: of the argument.
        share: what was given.

    Raises:
        ValueError: if it is not a number in [0, 1].
    """
    is_number = isinstance(share, numbers.Real | np.generic | np.ndarray | jax.Array)
    is_number = is_number and np.ndim(share) == 0 and np.asarray(share).dtype.kind != "b"
    if not is_number or not 0 <= share <= 1:
        raise ValueError(f"{name}: expected a share in [0, 1], got {share!r}")


def num_pruned(count: int, keep_rate: float) -> int:
    """Number of ``count`` items that a keep-rate prunes, rounded down.

    A keep-rate is a decimal or a quotient rounded to binary, maybe after a subtraction from 1: what
    is a whole number but for such rounding counts as that number, so that 0.9 of 100 keeps 90.

    Args:
        count: number of items.
        keep_rate: share kept, in [0, 1]; a number, not a traced one.

    Returns:
        The number pruned.

    Raises:
        ValueError: if ``keep_rate`` is not a number in [0, 1].
    """
    if isinstance(keep_rate, jax.core.Tracer):
        raise ValueError("keep_rate: expected a number, got a traced one")
    check_share("keep_rate", keep_rate)
    dtype = np.asarray(keep_rate).dtype
    resolution = float(jnp.finfo(dtype if jnp.issubdtype(dtype, jnp.floating) else float).eps)
    exact = count * (1 - fractions.Fraction(float(keep_rate)))
    nearest = round(exact)
    # Half precision cannot tell a kernel of a large network: never more than a quarter is forgiven.
    is_rounding = abs(exact - nearest) <= min(8 * resolution * count, 0.25)
    return nearest if is_rounding else math.floor(exact)


def one_shot_schedule(keep_rate: float, *, start: int = 0) -> Schedule:
    """Keep everything before ``start`` and ``keep_rate`` from then on.

    Args:
        keep_rate: share kept.
        start: step of the one pruning.

    Returns:
        The keep-rate as a function of the step.

    Raises:
        ValueError: if ``keep_rate`` is not in [0, 1], or ``start`` no whole number of at least 0.
    """
    check_share("keep_rate", keep_rate)
    start = whole_number("start", start, least=0)
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
        ValueError: if ``start`` or ``stop`` is no whole number of at least 0, ``stop`` is not after
            ``start``, or a share is not in [0, 1].
    """
    check_share("keep_rate", keep_rate)
    check_share("initial", initial)
    start = whole_number("start", start, least=0)
    stop = whole_number("stop", stop, least=start + 1)

    def schedule(step: int) -> float:
        remaining = 1 - min(max((step - start) / (stop - start), 0.0), 1.0)
        return keep_rate + (initial - keep_rate) * remaining**3

    return schedule
