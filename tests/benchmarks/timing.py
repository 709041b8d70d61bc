"""Timing of compiled functions: first call apart, then medians of interleaved repetitions."""

import statistics
import time
from typing import NamedTuple

import jax


class Times(NamedTuple):
    """Seconds of the first call, and medians of the later ones: wall clock and processor."""

    first: float
    wall: float
    processor: float


def once(function) -> float:
    """Seconds of one call, until its results are there."""
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


def interleaved(functions: dict, *, repeats: int = 5) -> dict[str, Times]:
    """The times of each function by name.

    The functions take turns, so that what else the machine does meets them alike. Processor
    seconds (all threads summed) are what a busy machine changes least.
    """
    first = {name: once(function) for name, function in functions.items()}
    wall, processor = ({name: [] for name in functions} for _ in range(2))
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.process_time()
            wall[name].append(once(function))
            processor[name].append(time.process_time() - start)
    median = statistics.median
    return {name: Times(first[name], median(wall[name]), median(processor[name])) for name in first}


def matmul_peak(size: int = 2048) -> float:
    """Measured float32 matrix product, FLOP a second of one core."""
    matrix = jax.random.normal(jax.random.key(0), (size, size))
    product = jax.jit(lambda a: a @ a)
    return 2 * size**3 / interleaved({"product": lambda: product(matrix)})["product"].processor
