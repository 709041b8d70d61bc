"""How long calls take, all in one run so that their ratios mean something."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax


def latencies(calls: Mapping[str, Callable[[], Any]], *, repeats: int = 20) -> dict[str, float]:
    """Median time of each call, taken in turns after one call each that is not counted.

    Args:
        calls: name -> function of no arguments that returns arrays; the first call compiles.
        repeats: times each is called.

    Returns:
        Name -> milliseconds until its arrays are there.
    """
    for call in calls.values():
        jax.block_until_ready(call())
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def seconds_of(call: Callable[[], Any]) -> float:
    """Seconds until one call returns."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
