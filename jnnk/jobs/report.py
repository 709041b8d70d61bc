"""``jnnk report``: results.json, the figures and report.html from what a run folder holds."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import TypeVar

from jnnk._core.errors import InputError
from jnnk.files.schema import as_object
from jnnk.jobs.train import train_config
from jnnk.report.figures import overview as figures
from jnnk.report.headline import Headline, answers, costs, headline, why_time_differs
from jnnk.report.output import draw, percent
from jnnk.report.page import Drawing, Section, render
from jnnk.report.sections.overlap import overlap_sections
from jnnk.report.sections.protocol import protocol_sections
from jnnk.report.sections.pruning import prune_sections
from jnnk.runs.divergence import TRAINING, divergences, read_metrics
from jnnk.runs.folder import Run, read_json, write_bytes, write_json
from jnnk.runs.overlap_files import last_epoch, read_arrays, read_records
from jnnk.runs.progress import SILENT, Progress
from jnnk.runs.records import (
    ChannelPruningResult,
    EpochMetrics,
    ProtocolResult,
    PruningResult,
    Results,
)
from jnnk.runs.settings import PruneConfig

Kind = TypeVar("Kind")


def report(run: Run, *, progress: Progress = SILENT) -> pathlib.Path:
    """Writes ``results.json``, ``figures/`` and ``report.html``; parts not run yet are left out.

    Returns:
        Path of the report.

    Raises:
        InputError: if there is nothing to report yet.
    """
    config, results = train_config(run), collect(run)
    sections: list[Section] = []
    for part in (
        lambda: _training_section(run, results.training),
        lambda: overlap_sections(run, config, results.overlap, results.overlap_matrices),
        lambda: prune_sections(run, results.pruning, results.pruning_settings),
        lambda: _channels_section(results.channels),
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
        _overview(run, results, numbers),
        sections,
    )
    path = run.path / "report.html"
    write_bytes(path, page.encode())
    return path


def collect(run: Run) -> Results:
    """Everything a run folder knows; empty where not run."""
    diverged = divergences(run.path)
    training = read_metrics(run.path)
    if TRAINING in diverged:
        training = [line for line in training if line.epoch < diverged[TRAINING].epoch]
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
        training=tuple(training),
        overlap=tuple(layers),
        overlap_matrices={
            record.layer: read_arrays(run.path, record).overlap for record in last_epoch(layers)
        },
        pruning=read_json(folder / "result.json", kind=PruningResult) if is_pruned else None,
        pruning_settings=read_json(folder / "settings.json", kind=PruneConfig)
        if is_pruned
        else None,
        finetuning=() if "prune" in diverged else tuple(read_metrics(folder)),
        channels=results_in("channels", ChannelPruningResult),
        protocols=results_in("protocol", ProtocolResult),
    )


def _overview(run: Run, results: Results, numbers: Headline) -> Section | None:
    """Redundancy and pruning layer by layer, and before and after in numbers."""
    drawings = _by_layer(run, results) if results.overlap else []
    if numbers.pruning is not None:
        table = (["", "before", "after"], costs(numbers.pruning))
        return Section("", why_time_differs(numbers.pruning), drawings, table)
    return Section("", "", drawings) if drawings else None


def _by_layer(run: Run, results: Results) -> list[Drawing]:
    counts = {
        layer.path.removeprefix("params/").removesuffix("/kernel"): layer.kernels
        for layer in (results.pruning.kept.layers if results.pruning else ())
    }
    rows = [
        figures.LayerOverview(
            record.layer, record.measures.redundancy.mean, *counts.get(record.layer, (None, None))
        )
        for record in last_epoch(results.overlap)
    ]
    caption = "Redundancy of every layer's channels"
    caption += ", and the share of its kernels that were pruned." if counts else "."
    figure = figures.redundancy_and_pruning(rows)
    return [draw(run, "overview", figure, caption, rows)]


def _channels_section(channels: Mapping[str, ChannelPruningResult]) -> list[Section]:
    """A row for every pruning of whole channels."""
    if not channels:
        return []
    header = [
        "chosen by", "share removed", "accuracy before", "at once", "fine-tuned", "MACs before",
        "after", "ms a batch before", "after",
    ]  # fmt: skip
    rows = []
    for name, result in channels.items():
        pruned, times = result.pruned, result.latency
        accuracies = (pruned.accuracy_before, pruned.accuracy_pruned, pruned.accuracy_finetuned)
        rows.append(
            [
                name,
                *map(percent, (result.share, *accuracies)),
                *(result.kept.macs or (None, None)),
                *((times.whole, times.compacted) if times else (None, None)),
            ]
        )
    text = "The inner channels of every block, removed from the arrays and fine-tuned."
    return [Section("What if whole channels go?", text, table=(header, rows))]


def _training_section(run: Run, training: Sequence[EpochMetrics]) -> list[Section]:
    if not training:
        return []
    last = training[-1]
    return [
        Section(
            "How well does the network classify?",
            f"After epoch {last.epoch}: {percent(last.test_accuracy)} of the test images, "
            f"{percent(last.accuracy)} of the (augmented) training batches.",
            [
                draw(
                    run,
                    "training",
                    figures.training_curves(training),
                    "Training loss and accuracy by epoch.",
                    training,
                )
            ],
        )
    ]
