"""What a whole run folder holds: the settings it was made with, and all results."""

import pathlib
from typing import TypeVar

from jnnk._core.errors import InputError
from jnnk._core.option_types import check_numbers
from jnnk.files.schema import conform
from jnnk.runs.divergence import TRAINING, divergences, read_epochs
from jnnk.runs.folder import NEWER, Run
from jnnk.runs.json_files import read_json
from jnnk.runs.overlap_files import last_epoch, read_arrays, read_records
from jnnk.runs.records import ChannelPruningResult, ProtocolResult, PruningResult, Results
from jnnk.runs.settings import PruneConfig, TrainConfig

Kind = TypeVar("Kind")


def train_config(run: Run) -> TrainConfig:
    """The training settings a run folder was made with.

    Args:
        run: the run folder.

    Raises:
        InputError: if a setting is missing, or is none that a training could have.
    """
    path, found = run.path / "config.json", {**NEWER, **run.config}
    if missing := [name for name in TrainConfig._fields if name not in found]:
        raise InputError(f"{path} lacks {', '.join(missing)}: another version of jnnk wrote it")
    try:
        config = conform(found, TrainConfig)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    check_numbers(config, path)
    return config


def collect(run: Run) -> Results:
    """Everything a run folder knows; empty where not run.

    Args:
        run: the run folder.
    """
    diverged = divergences(run.path)
    layers = [] if TRAINING in diverged else read_records(run.path)

    def holds(path: pathlib.Path) -> bool:
        """Whether a pruning is a result."""
        part = str(path.parent.relative_to(run.path))
        of_part = (name for name in diverged if f"{name}/".startswith(f"{part}/"))
        return path.exists() and TRAINING not in diverged and not any(of_part)

    def results_in(folder: str, kind: type[Kind]) -> dict[str, Kind]:
        """The results of a folder's prunings by name."""
        paths = sorted(run.path.glob(f"{folder}/*/result.json"))
        return {path.parent.name: read_json(path, kind=kind) for path in paths if holds(path)}

    folder = run.path / "prune"
    is_pruned = holds(folder / "result.json")
    return Results(
        diverged=diverged,
        training=tuple(read_epochs(run.path)),
        overlap=tuple(layers),
        overlap_matrices={
            record.layer: read_arrays(run.path, record).overlap for record in last_epoch(layers)
        },
        pruning=read_json(folder / "result.json", kind=PruningResult) if is_pruned else None,
        pruning_settings=read_json(folder / "settings.json", kind=PruneConfig)
        if is_pruned
        else None,
        finetuning=() if "prune" in diverged else tuple(read_epochs(folder)),
        channels=results_in("channels", ChannelPruningResult),
        protocols=results_in("protocol", ProtocolResult),
    )
