"""What surrounds a command: devices, the other processes, libraries that speak unasked."""

import functools
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

import jax

from jnnk._core.errors import InputError
from jnnk.parallel import is_first, join_processes, largest
from jnnk.runs.signals import Signals, Stopped


def find_devices() -> None:
    """Asks JAX for its devices, which is where a platform that is not there shows.

    Raises:
        InputError: if there is none.
    """
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # JAX asserts where a plugin is missing
        reason = str(error).strip().splitlines()[:1] or ["no device of that kind"]
        platforms = os.environ.get("JAX_PLATFORMS", "")
        raise InputError(
            f"JAX finds no device: {reason[0]} (JAX_PLATFORMS is {platforms!r}; without it JAX "
            "takes what is there)"
        ) from None


def is_first_process() -> bool:
    """Joins the other processes, before anything asks for a device; whether this one speaks."""
    try:
        join_processes()
    except InputError as error:
        raise InputError(f"--distributed: {error}") from None
    return is_first()


def check_together(signals: Signals) -> Callable[[], None]:
    """A check by which all processes end where one of them was told to.

    Args:
        signals: those that this process got.

    Returns:
        A function that all processes call in step; it raises `Stopped`.
    """

    def check() -> None:
        if number := largest(signals.first):
            raise Stopped(number)

    return check


def quiet_libraries() -> None:
    """Leaves out what orbax and TFDS say in their threads of errors that reach us besides."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if not isinstance(sys.unraisablehook, functools.partial):
        sys.unraisablehook = functools.partial(_without_closed_loops, sys.unraisablehook)


def _without_closed_loops(usual: Callable[[Any], Any], unraisable: Any) -> None:
    # After a write that failed, orbax closes its event loop while tensorstore still calls back.
    error = unraisable.exc_value
    if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
        usual(unraisable)
