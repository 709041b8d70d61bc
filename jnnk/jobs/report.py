"""``jnnk report``: results.json, the figures and report.html from what a run folder holds."""

import pathlib
from typing import TypeVar

from jnnk._core.errors import InputError
from jnnk.files.schema import as_object
from jnnk.jobs.train import train_config
from jnnk.report.headline import answers, headline
from jnnk.report.page import Section, render
from jnnk.report.sections.overlap import overlap_sections
from jnnk.report.sections.protocol import protocol_sections
from jnnk.report.sections.pruning import prune_sections
from jnnk.report.sections.summary import channels_sections, overview, training_sections
from jnnk.runs.divergence import TRAINING, divergences, read_epochs
from jnnk.runs.folder import Run, read_json, write_bytes, write_json
from jnnk.runs.overlap_files import last_epoch, read_arrays, read_records
from jnnk.runs.progress import SILENT, Progress
from jnnk.runs.records import ChannelPruningResult, ProtocolResult, PruningResult, Results
from jnnk.runs.settings import PruneConfig

Kind = TypeVar("Kind")


def report(run: Run, *, progress: Progress = SILENT) -> pathlib.Path:
    """Writes ``results.json``, ``figures/`` and ``report.html``, whose path it returns.

    Parts not run yet are left out.

    Raises:
        InputError: if there is nothing to report yet.
    """
    config, results = train_config(run), collect(run)
    sections: list[Section] = []
    for part in (
        lambda: training_sections(run, results.training),
        lambda: overlap_sections(run, config, results.overlap, results.overlap_matrices),
        lambda: prune_sections(run, results.pruning, results.pruning_settings),
        lambda: channels_sections(results.channels),
        lambda: protocol_sections(run, results.protocols),
    ):
        progress.check()
        sections += part()
    if not sections and not results.diverged:
        raise InputError(f"{run.path} holds no results yet; run jnnk train, overlap or prune first")
    progress.check()
    write_json(run.path / "results.json", {"config": run.config, **as_object(results)})
    numbers = headline(config, results)
    page = render(
        f"{config.model} on {config.dataset}: what is redundant, what can go, what it costs",
        f"{config.epochs} epochs of {config.optimizer}, seed {config.seed}",
        answers(numbers),
        overview(run, results, numbers.pruning),
        sections,
    )
    path = run.path / "report.html"
    write_bytes(path, page.encode())
    return path


def collect(run: Run) -> Results:
    """Everything a run folder knows; empty where not run."""
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
