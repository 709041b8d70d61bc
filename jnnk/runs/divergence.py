"""Trainings that diverged: how it is noticed, what their folder keeps, and that they are no result.

A training whose loss is not finite ends. Its ``metrics.jsonl`` then ends with a line whose loss is
null, as do those of earlier versions, which trained on; its checkpoints are those of before.
"""

import pathlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from jnnk._core.errors import InputError
from jnnk.runs.json_files import read_json, read_json_lines, write_json_lines
from jnnk.runs.records import DivergedEpoch, Divergence, EpochMetrics, MetricsLine

Record = TypeVar("Record")

TRAINING = "training"
"""Name of a run's own training among its parts; the others have their folder's."""
_PARTS = ("prune", "channels/*", "protocol/*/seed*/*")


class Diverged(InputError):
    """A training whose loss, or whose network's answers, were not finite."""


def first_not_finite(losses: Sequence[float]) -> tuple[int, float] | None:
    """The first step whose loss is not finite, counted from 1, and that loss.

    Args:
        losses: of consecutive steps.
    """
    values = np.asarray(losses, np.float64)
    steps = np.flatnonzero(~np.isfinite(values))
    return (int(steps[0]) + 1, float(values[steps[0]])) if steps.size else None


def divergence(lines: Sequence[MetricsLine]) -> Divergence | None:
    """Where the training of these lines diverged, if it did."""
    for line in lines:
        if isinstance(line, DivergedEpoch):
            return Divergence(line.epoch, line.diverged_at_step)
        if line.loss is None:
            return Divergence(line.epoch, None)
    return None


def read_metrics(folder: pathlib.Path) -> list[MetricsLine]:
    """The lines of a training's ``metrics.jsonl``; none if it does not exist.

    Args:
        folder: of the training.

    Raises:
        InputError: if the file is damaged.
    """
    return read_json_lines(folder / "metrics.jsonl", kind=MetricsLine)


def write_metrics(folder: pathlib.Path, lines: Sequence[MetricsLine]) -> None:
    """Writes the lines of a training's ``metrics.jsonl``, atomically.

    Args:
        folder: of the training.
        lines: of its epochs so far.
    """
    write_json_lines(folder / "metrics.jsonl", lines)


def read_epochs(folder: pathlib.Path) -> list[EpochMetrics]:
    """The epochs of a training, those before it diverged if it did; see `read_metrics`."""
    lines = read_metrics(folder)
    found = divergence(lines)
    return [
        line
        for line in lines
        if isinstance(line, EpochMetrics) and (found is None or line.epoch < found.epoch)
    ]


def divergences(run: pathlib.Path) -> dict[str, Divergence]:
    """The trainings in a run folder that diverged, by part: `TRAINING`, or the part's folder.

    Args:
        run: the run folder.
    """
    folders = {TRAINING: run}
    for pattern in _PARTS:
        folders |= {str(path.relative_to(run)): path for path in sorted(run.glob(pattern))}
    found = {name: divergence(read_metrics(folder)) for name, folder in folders.items()}
    return {name: where for name, where in found.items() if where is not None}


def refuse_diverged(folder: pathlib.Path, *, epoch: int | None = None) -> None:
    """Refuses what a training left that diverged.

    Args:
        folder: of the training.
        epoch: after which its network is wanted; the last one by default.

    Raises:
        Diverged: if the training diverged before.
    """
    found = divergence(read_metrics(folder))
    if found is not None and (epoch is None or epoch >= found.epoch):
        raise Diverged(
            f"{folder}: its training diverged (no finite loss at {found}), so its network says "
            "nothing; train into another folder with a smaller learning rate"
        )


def read_result(folder: pathlib.Path, kind: type[Record]) -> Record | None:
    """The ``result.json`` of a pruning, None where there is none yet.

    Args:
        folder: of the pruning.
        kind: of the result.

    Raises:
        Diverged: if there is a result, but its training diverged.
    """
    path = folder / "result.json"
    if not path.exists():
        return None
    refuse_diverged(folder)
    return read_json(path, kind=kind)
