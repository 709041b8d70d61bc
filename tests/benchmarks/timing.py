"""Timing of compiled functions: first call apart, then medians of interleaved repetitions."""

import statistics
import time

import jax


def once(function) -> float:
    """Seconds of one call, until its results are there."""
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


def interleaved(functions: dict, *, repeats: int = 5) -> dict:
    """Name -> (seconds of the first call, median seconds of the later ones).

    The functions take turns, so that what else the machine does meets them alike.
    """
    first = {name: once(function) for name, function in functions.items()}
    times = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            times[name].append(once(function))
    return {name: (first[name], statistics.median(times[name])) for name in functions}


def matmul_peak(size: int = 2048) -> float:
    """Measured float32 matrix product, FLOP/s."""
    matrix = jax.random.normal(jax.random.key(0), (size, size))
    product = jax.jit(lambda a: a @ a)
    return 2 * size**3 / interleaved({"product": lambda: product(matrix)})["product"][1]
