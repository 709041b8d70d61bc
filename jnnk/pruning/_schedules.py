"""Schedules of pruning: the keep-rate of each step."""

from collections.abc import Callable

from jnnk._core.whole_numbers import whole_number
from jnnk.pruning._selection import check_share

Schedule = Callable[[int], float]
"""A keep-rate for each step."""


def cubic_schedule(keep_rate: float, *, start: int, stop: int, initial: float = 1.0) -> Schedule:
    """Keep-rates of gradual pruning along a cubic: fast at first, slow near the end.

    Zhu & Gupta, "To prune, or not to prune" (arXiv 1710.01878), equation 1. Pass the masks made so
    far as ``previous`` to `make_masks`, so that nothing comes back.

    Args:
        keep_rate: from ``stop`` on, in [0, 1].
        start: last step at which ``initial`` is kept.
        stop: first step at which ``keep_rate`` is reached.
        initial: keep-rate up to ``start``.

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
