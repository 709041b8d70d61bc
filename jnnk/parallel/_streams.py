"""Two programs at once on a CPU, where XLA runs most of one program on one core."""

import collections
import concurrent.futures
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jnnk._core.arrays import ArrayLike

Result = TypeVar("Result")

#: Programs in flight. They hold no LAPACK calls, which deadlock when two run at once (JAX 0.10.2).
STREAMS = 2


def can_stream(*arrays: ArrayLike) -> bool:
    """Whether `map_streams` may compute with the arrays: concrete, and on the one CPU device.

    Not inside a transformation either, which would trace every slice of arrays it closes over, nor
    where ``jax_disable_jit`` leaves nothing to compile.
    """
    inside = isinstance(jnp.zeros(()) + 0, Tracer)
    return (
        not inside
        and not _jit_is_disabled()
        and jax.default_backend() == "cpu"
        and all(
            isinstance(array, np.ndarray)
            or (not isinstance(array, Tracer) and len(array.devices()) == 1)
            for array in arrays
        )
    )


def map_streams(
    function: Callable[..., Result],
    calls: Iterable[tuple[ArrayLike, ...]],
    *,
    static: Mapping[str, object],
    shared: Mapping[str, jax.Array],
) -> list[Result]:
    """``[function(*arguments, **static, **shared) for arguments in calls]``, two at a time.

    The program is traced and compiled once, by the calling thread: JAX's contexts (x64, dtype
    promotion, default device) hold for the thread that set them alone, and the streams only run
    what is compiled.

    Args:
        function: can be jitted.
        calls: arrays for each call, the same shapes and dtypes in all; taken as they are needed.
        static: arguments that ``function`` is compiled for.
        shared: arrays that all calls get.

    Returns:
        The results, computed, in the order of the calls.
    """
    if _jit_is_disabled():
        return [function(*arguments, **static, **shared) for arguments in calls]
    results: list[Result] = []
    waiting: collections.deque[concurrent.futures.Future[Result]] = collections.deque()
    program = None

    def run(program: Callable[..., Result], arguments: tuple[ArrayLike, ...]) -> Result:
        return jax.block_until_ready(program(*arguments, **shared))

    with concurrent.futures.ThreadPoolExecutor(STREAMS) as streams:
        for arguments in calls:
            if program is None:
                jitted = jax.jit(function, static_argnames=tuple(static))
                program = jitted.lower(*arguments, **static, **shared).compile()
            if len(waiting) > STREAMS:
                results.append(waiting.popleft().result())
            waiting.append(streams.submit(run, program, arguments))
        results += [future.result() for future in waiting]
    return results


def _jit_is_disabled() -> bool:
    return jax.config.jax_disable_jit  # pyright: ignore[reportAttributeAccessIssue]
