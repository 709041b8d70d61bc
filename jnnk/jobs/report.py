"""``jnnk report``: results.json, the figures and report.html from what a run folder holds."""

import pathlib
from typing import Any

from jnnk._core.errors import InputError
from jnnk.jobs.train import train_config
from jnnk.report.figures import overview as figures
from jnnk.report.headline import answers, costs, headline, why_time_differs
from jnnk.report.output import draw, percent
from jnnk.report.page import Drawing, Section, render
from jnnk.report.sections.overlap import overlap_sections
from jnnk.report.sections.protocol import protocol_sections
from jnnk.report.sections.pruning import prune_sections
from jnnk.runs.divergence import TRAINING, divergences
from jnnk.runs.folder import Run, read_json, read_json_lines, write_bytes, write_json
from jnnk.runs.overlap_files import last_epoch, read_arrays, read_records
from jnnk.runs.progress import Progress, Silent
from jnnk.runs.records import (
    ChannelPruning,
    MetricsLine,
    Protocol,
    PruneSettings,
    Pruning,
    check_protocol,
    check_pruning,
)


def report(run: Run, *, progress: Progress | None = None) -> pathlib.Path:
    """Writes ``results.json``, ``figures/`` and ``report.html``; parts not run yet are left out.

    Args:
        run: a run folder in which at least one job has left results.
        progress: may end it between two parts.

    Returns:
        Path of the report.

    Raises:
        InputError: if there is nothing to report yet.
    """
    progress = progress or Silent()
    results = collect(run)
    sections: list[Section] = []
    for part in (
        lambda: _training_section(run, results),
        lambda: overlap_sections(run, results),
        lambda: prune_sections(run, results),
        lambda: _channels_section(results["channels"]),
        lambda: protocol_sections(run, results["protocols"]),
    ):
        progress.check()
        sections += part()
    if not sections and not results["diverged"]:
        raise InputError(f"{run.path} holds no results yet; run jnnk train, overlap or prune first")
    progress.check()
    write_json(run.path / "results.json", results)
    config, numbers = results["config"], headline(results)
    page = render(
        f"{config['model']} on {config['dataset']}: what is redundant, what can go, what it costs",
        f"{config['epochs']} epochs of {config['optimizer']}, seed {config['seed']}",
        answers(numbers),
        _overview(run, results, numbers),
        sections,
    )
    path = run.path / "report.html"
    write_bytes(path, page.encode())
    return path


def collect(run: Run) -> dict[str, Any]:
    """Everything a run folder knows, as ``results.json`` holds it.

    Keys: ``config``; ``diverged``, part to :class:`jnnk.runs.divergence.Divergence` of every
    training that diverged, whose results are left out, and all that was made of its network;
    ``training``, the lines of metrics.jsonl; ``overlap``, one record an epoch
    and layer, the epoch ``"random"`` being a control made for it; ``overlap_matrices``, layer to
    (C, C) of the last epoch measured; ``pruning``, the record of :func:`jnnk.jobs.prune.prune`,
    ``pruning_settings``, and ``finetuning``, its lines; ``channels``, criterion to record of
    :func:`jnnk.jobs.prune_channels.prune_channels`; ``protocols``, name to record of
    :func:`jnnk.jobs.protocol.protocol`. Empty where not run.
    """
    diverged = divergences(run.path)
    training = read_json_lines(run.path / "metrics.jsonl", kind=MetricsLine)
    train_config(run)  # is it whole?
    if TRAINING in diverged:
        training = [line for line in training if line["epoch"] < diverged[TRAINING].epoch]
    records = [] if TRAINING in diverged else read_records(run.path)

    def holds(path: pathlib.Path) -> bool:
        """Whether a pruning is a result."""
        part = str(path.parent.relative_to(run.path))
        of_part = (name for name in diverged if f"{name}/".startswith(f"{part}/"))
        return path.exists() and TRAINING not in diverged and not any(of_part)

    def results_in(folder: str, kind: type, **options: Any) -> dict[str, Any]:
        """The results of a folder's prunings by name."""
        paths = sorted(run.path.glob(f"{folder}/*/result.json"))
        return {
            path.parent.name: read_json(path, kind=kind, **options) for path in paths if holds(path)
        }

    pruning = run.path / "prune" / "result.json"
    is_pruned = holds(pruning)
    return {
        "config": run.config,
        "diverged": diverged,
        "training": training,
        "overlap": records,
        "overlap_matrices": {
            record.layer: read_arrays(run.path, record).overlap for record in last_epoch(records)
        },
        "pruning": read_json(pruning, kind=Pruning, check=check_pruning) if is_pruned else None,
        "pruning_settings": read_json(pruning.with_name("settings.json"), kind=PruneSettings)
        if is_pruned
        else None,
        "finetuning": []
        if "prune" in diverged
        else read_json_lines(pruning.with_name("metrics.jsonl"), kind=MetricsLine),
        "channels": results_in("channels", ChannelPruning),
        "protocols": results_in("protocol", Protocol, check=check_protocol),
    }


def _overview(run: Run, results: dict[str, Any], numbers: dict[str, Any]) -> Section | None:
    """Redundancy and pruning layer by layer, and before and after in numbers."""
    drawings = _by_layer(run, results) if results["overlap"] else []
    if results["pruning"]:
        table = (["", "before", "after"], costs(numbers))
        return Section("", why_time_differs(numbers), drawings, table)
    return Section("", "", drawings) if drawings else None


def _by_layer(run: Run, results: dict[str, Any]) -> list[Drawing]:
    counts = {
        layer["path"].removeprefix("params/").removesuffix("/kernel"): layer["kernels"]
        for layer in (results["pruning"]["kept"]["layers"] if results["pruning"] else [])
    }
    rows = [
        figures.LayerOverview(
            record.layer, record.measures.redundancy.mean, *counts.get(record.layer, (None, None))
        )
        for record in last_epoch(results["overlap"])
    ]
    caption = "Redundancy of every layer's channels"
    caption += ", and the share of its kernels that were pruned." if counts else "."
    figure = figures.redundancy_and_pruning(rows)
    return [draw(run, "overview", figure, caption, rows)]


def _channels_section(channels: dict[str, dict[str, Any]]) -> list[Section]:
    """A row for every pruning of whole channels."""
    if not channels:
        return []
    header = [
        "chosen by", "share removed", "accuracy before", "at once", "fine-tuned", "MACs before",
        "after", "ms a batch before", "after",
    ]  # fmt: skip
    rows = []
    for name, record in channels.items():
        times = record.get("latency") or {"whole": None, "compacted": None}
        shares = ("share", "accuracy_before", "accuracy_pruned", "accuracy_finetuned")
        macs = record["kept"]["macs"] or (None, None)
        rows.append(
            [
                name,
                *(percent(record[field]) for field in shares),
                *macs,
                *map(times.get, ("whole", "compacted")),
            ]
        )
    text = "The inner channels of every block, removed from the arrays and fine-tuned."
    return [Section("What if whole channels go?", text, table=(header, rows))]


def _training_section(run: Run, results: dict[str, Any]) -> list[Section]:
    if not results["training"]:
        return []
    last = results["training"][-1]
    return [
        Section(
            "How well does the network classify?",
            f"After epoch {last['epoch']}: {percent(last['test_accuracy'])} of the test images, "
            f"{percent(last['accuracy'])} of the (augmented) training batches.",
            [
                draw(
                    run,
                    "training",
                    figures.training_curves(results["training"]),
                    "Training loss and accuracy by epoch.",
                    results["training"],
                )
            ],
        )
    ]
