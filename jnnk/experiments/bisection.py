"""Where a predicate on whole numbers turns from true to false, in few evaluations."""

from collections.abc import Callable


def last_true(
    is_true: Callable[[int], bool], *, low: int, high: int, guess: int | None = None
) -> int:
    """Finds ``n`` with ``is_true(n)`` and not ``is_true(n + 1)``, from ``low`` to ``high - 1``.

    The predicate is taken to be true at ``low`` and false at ``high``, and evaluated between them,
    at most once at any number. Where it turns once, ``n`` is the largest true number; otherwise one
    of several turning points. Without a guess the range is halved. With one, steps of doubling
    length lead away from it until the turning point lies between two of them, so that a right guess
    costs two evaluations however wide the range.
    """
    if high <= low:
        raise ValueError(f"high: expected a number above low={low}, got {high}")
    at = (low + high) // 2 if guess is None else min(max(guess, low + 1), high - 1)
    stride = 0 if guess is None else 1
    upwards = None
    while high - low > 1:
        found = is_true(at)
        low, high = (at, high) if found else (low, at)
        upwards = found if upwards is None else upwards
        if found != upwards:
            stride = 0  # stepped over it
        step = stride if upwards else -stride
        at = at + step if stride and low < at + step < high else (low + high) // 2
        stride *= 2
    return low
