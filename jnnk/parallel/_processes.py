"""Several processes that run one command together, in step: all compute, the first one writes.

Every process runs the same program with the same arguments. What one reads in a run folder (on a
file system that all of them see) all must find alike, so every write is a place where they meet.
"""

import os
from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils

from jnnk._core.errors import InputError


def join_processes() -> None:
    """Joins the other processes of this command; nothing may have touched a device before.

    The coordinator's address, the number of processes and this one's place among them come from
    where ``jax.distributed.initialize`` finds them (a TPU pod, Slurm, Open MPI, Kubernetes), or
    else from ``JAX_COORDINATOR_ADDRESS``, ``JAX_NUM_PROCESSES`` and ``JAX_PROCESS_ID``.

    Raises:
        InputError: if they cannot be found, or not all processes come.
    """
    number, place = _whole_number("JAX_NUM_PROCESSES"), _whole_number("JAX_PROCESS_ID")
    try:
        jax.distributed.initialize(num_processes=number, process_id=place)
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"this process found no others ({reason}); outside of a TPU pod, Slurm, "
            "Open MPI and Kubernetes set JAX_COORDINATOR_ADDRESS (HOST:PORT of the first process), "
            "JAX_NUM_PROCESSES and JAX_PROCESS_ID"
        ) from None


def is_first() -> bool:
    """Whether this process is the one that writes and speaks: always so if there is no other."""
    return not are_several() or jax.process_index() == 0


def on_first(action: Callable[[], None], *, name: str) -> None:
    """Does something to files once: by the first process, while all others wait.

    All meet before, when whatever they read of the old state is read, and after, when it is done.

    Args:
        action: what to do.
        name: of the action, the same in all processes; JAX raises if they meet at different ones.
    """
    if not are_several():
        action()
        return
    multihost_utils.sync_global_devices(f"before {name}")
    if is_first():
        action()
    multihost_utils.sync_global_devices(f"after {name}")


def largest(number: int) -> int:
    """The largest of the numbers that the processes give; all must call it, in step."""
    if not are_several():
        return number
    return int(multihost_utils.process_allgather(np.int32(number)).max())


def are_several() -> bool:
    """Whether this process has joined others."""
    # Asked first, because the count starts a backend, which reading a folder does not need.
    return jax.distributed.is_initialized() and jax.process_count() > 1


def _whole_number(variable: str) -> int | None:
    text = os.environ.get(variable)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise InputError(f"{variable}: expected a whole number, got {text!r}")
    return int(text)
