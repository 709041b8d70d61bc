"""The epoch that a training was stopped in: its state after the last step, its metrics so far."""

import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jnnk.parallel import on_first
from jnnk.runs.checkpoints import Checkpoints
from jnnk.training import Metrics, TrainState


def save_unfinished(
    folder: pathlib.Path,
    state: TrainState,
    history: Sequence[Metrics],
    *,
    seconds: float,
    steps_before: int,
) -> None:
    """Keeps a part of an epoch; of several processes all must call it.

    Args:
        folder: of the training.
        state: after the last step.
        history: of the steps of this epoch, one or more.
        seconds: that they took.
        steps_before: steps of the epochs before it.
    """
    metrics = Metrics(*np.stack(jax.device_get(list(history)), axis=1))
    with Checkpoints(folder / "unfinished") as checkpoints:
        checkpoints.save(steps_before + len(history), (state, metrics, np.float32(seconds)))


def load_unfinished(
    folder: pathlib.Path, state: TrainState, *, steps_before: int, num_batches: int
) -> tuple[TrainState, list[Metrics], float]:
    """The part of an epoch that is kept; the given state and nothing else if there is none.

    Args:
        folder: of the training.
        state: at the start of the epoch.
        steps_before: steps of the epochs before it; parts of others are of no use any more.
        num_batches: steps of a whole epoch.

    Returns:
        The state, the metrics of the steps done and the seconds that they took.

    Raises:
        InputError: if it is damaged.
    """
    if not (folder / "unfinished").exists():
        return state, [], 0.0
    with Checkpoints(folder / "unfinished") as checkpoints:
        steps = checkpoints.latest()
        if steps is None or not steps_before < steps <= steps_before + num_batches:
            return state, [], 0.0
        each: Any = jax.ShapeDtypeStruct((steps - steps_before,), np.float32)
        like = (state, Metrics(*[each] * len(Metrics._fields)), jax.ShapeDtypeStruct((), "float32"))
        state, metrics, seconds = checkpoints.restore(steps, like)
    return state, [Metrics(*step) for step in np.stack(metrics, axis=1)], float(seconds)


def discard_unfinished(folder: pathlib.Path) -> None:
    """Removes it, once the epoch is whole; of several processes all must call it."""
    path = folder / "unfinished"
    on_first(lambda: shutil.rmtree(path, ignore_errors=True), name=f"removing {path}")
