"""How many processor cores a run was made with: the last digits of sums depend on it."""

import os
from dataclasses import dataclass

import jax

from jnnk.runs.folder import Run
from jnnk.runs.json_files import read_json, write_json
from jnnk.runs.progress import Progress


@dataclass(frozen=True)
class Cores:
    """What ``cores.json`` holds."""

    cores: tuple[int, ...]  # numbers of cores, in the order in which they worked


def note_cores(run: Run, progress: Progress) -> None:
    """Keeps how many cores work on a run, and says when it is another number than before.

    XLA divides sums among the cores of a CPU. On accelerators nothing is kept, nor of several
    processes, whose machines may differ.

    Args:
        run: the run folder; gets ``cores.json``.
        progress: told of the change.
    """
    if jax.default_backend() != "cpu" or jax.process_count() > 1:
        return
    path, number = run.path / "cores.json", _cores()
    known = read_json(path, kind=Cores).cores if path.exists() else ()
    if known and known[-1] != number:
        progress.note(
            f"{run.path} was made with {_in_words(known[-1])} and goes on with "
            f"{_in_words(number)}: last digits may differ from those of a run in one go"
        )
    if known[-1:] != (number,):
        write_json(path, Cores((*known, number)))


def _cores() -> int:
    """The cores that this process may use, as XLA counts them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _in_words(number: int) -> str:
    return f"{number} core{'' if number == 1 else 's'}"
