"""Compiling ahead and timing, for functions of JAX and of PyTorch alike."""

import concurrent.futures
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from timing import once

try:
    import torch
except ImportError:  # its rows are left out
    torch = None


class Compiled(NamedTuple):
    """A program, and the seconds that tracing and compiling it took."""

    call: Callable[..., Any]
    seconds: float

    def __call__(self, *arguments):
        return self.call(*arguments)


def compiled(function: Callable[..., Any], *arguments: Any) -> Compiled:
    """The program of a function for arguments of these shapes, from within one ``jax.jit``."""
    start = time.perf_counter()
    jitted = function if hasattr(function, "lower") else jax.jit(function)
    program = jitted.lower(*arguments).compile()
    return Compiled(program, time.perf_counter() - start)


def compiled_together(calls: Mapping[Any, tuple]) -> dict[Any, Compiled]:
    """`compiled` for ``(function, *arguments)`` by name, several at a time.

    On a card compiling is most of what this script takes; the seconds of each are longer here than
    alone. Nothing may be timed meanwhile.
    """
    workers = 1 if jax.default_backend() == "cpu" else 6
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        started = {name: pool.submit(compiled, *call) for name, call in calls.items()}
        return {name: future.result() for name, future in started.items()}


def seconds_of(function: Callable[[], Any], *, repeats: int = 7, at_most: float = 3.0) -> float:
    """Median seconds of a call, after one that warms up; fewer repetitions of slow ones."""
    return side_by_side({"": function}, repeats=repeats, at_most=at_most)[""]


def side_by_side(
    functions: Mapping[str, Callable[[], Any]], *, repeats: int = 7, at_most: float = 3.0
) -> dict[str, float]:
    """Median seconds of each function, which take turns after one call each that warms up.

    Args:
        functions: by name; each waits for what PyTorch computes, see `on_torch`.
        repeats: of each.
        at_most: seconds about which all repetitions of one function may take.
    """
    warm = {name: once(function) for name, function in functions.items()}
    counts = {name: max(1, min(repeats, int(at_most / warm[name]))) for name in functions}
    times = {name: [] for name in functions}
    for turn in range(max(counts.values())):
        for name, function in functions.items():
            if turn < counts[name]:
                times[name].append(once(function))
    return {name: statistics.median(values) for name, values in times.items()}


def torch_device() -> str:
    """Where PyTorch computes: on the card that JAX has, if it sees it too."""
    on_card = jax.default_backend() == "gpu" and torch.cuda.is_available()
    return "cuda" if on_card else "cpu"


def on_torch(function: Callable[[], Any]) -> Callable[[], Any]:
    """The function, done when it returns."""

    def call():
        result = function()
        if torch_device() == "cuda":
            torch.cuda.synchronize()
        return result

    return call


def to_torch(array: jax.Array):
    """A copy for PyTorch, which shares no memory with JAX's array."""
    import numpy as np

    return torch.from_numpy(np.array(array)).to(torch_device())


def free_torch():
    """Gives back what PyTorch keeps for later, so that JAX may have it."""
    if torch is not None and torch_device() == "cuda":
        torch.cuda.empty_cache()
