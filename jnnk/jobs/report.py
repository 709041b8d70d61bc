"""``jnnk report``: results.json, the figures and report.html from what a run folder holds."""

import pathlib
from typing import Any

from jnnk import figures
from jnnk.errors import InputError
from jnnk.jobs.headline import answers, costs, headline, why_time_differs
from jnnk.jobs.output import draw, percent
from jnnk.jobs.overlap_files import last_epoch, read_arrays, read_records
from jnnk.jobs.overlap_report import overlap_sections
from jnnk.jobs.protocol_report import protocol_sections
from jnnk.jobs.prune_report import prune_sections
from jnnk.jobs.records import (
    ChannelPruning,
    Epoch,
    Protocol,
    PruneSettings,
    Pruning,
    check_protocol,
    check_pruning,
)
from jnnk.jobs.train import train_config
from jnnk.report import Drawing, Section, render
from jnnk.runs import Run, read_json, read_json_lines, write_bytes, write_json


def report(run: Run) -> pathlib.Path:
    """Writes ``results.json``, ``figures/`` and ``report.html``; parts not run yet are left out.

    Args:
        run: a run folder in which at least one job has left results.

    Returns:
        Path of the report.

    Raises:
        InputError: if there is nothing to report yet.
    """
    results = collect(run)
    write_json(run.path / "results.json", results)
    sections = [
        *_training_section(run, results),
        *overlap_sections(run, results),
        *prune_sections(run, results),
        *_channels_section(results["channels"]),
        *protocol_sections(run, results["protocols"]),
    ]
    if not sections:
        raise InputError(f"{run.path} holds no results yet; run jnnk train, overlap or prune first")
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

    Keys: ``config``; ``training``, the lines of metrics.jsonl; ``overlap``, one record an epoch
    and layer, the epoch ``"random"`` being a control made for it; ``overlap_matrices``, layer to
    (C, C) of the last epoch measured; ``pruning``, the record of :func:`jnnk.jobs.prune.prune`,
    ``pruning_settings``, and ``finetuning``, its lines; ``channels``, criterion to record of
    :func:`jnnk.jobs.prune_channels.prune_channels`; ``protocols``, name to record of
    :func:`jnnk.jobs.protocol.protocol`. Empty where not run.
    """
    records = read_records(run.path)
    train_config(run)  # is it whole?
    pruning = run.path / "prune" / "result.json"
    return {
        "config": run.config,
        "training": read_json_lines(run.path / "metrics.jsonl", kind=Epoch),
        "overlap": records,
        "overlap_matrices": {
            record["layer"]: read_arrays(run.path, record).overlap for record in last_epoch(records)
        },
        "pruning": read_json(pruning, kind=Pruning, check=check_pruning)
        if pruning.exists()
        else None,
        "pruning_settings": read_json(pruning.with_name("settings.json"), kind=PruneSettings)
        if pruning.exists()
        else None,
        "finetuning": read_json_lines(run.path / "prune" / "metrics.jsonl", kind=Epoch),
        "channels": {
            path.parent.name: read_json(path, kind=ChannelPruning)
            for path in sorted(run.path.glob("channels/*/result.json"))
        },
        "protocols": {
            path.parent.name: read_json(path, kind=Protocol, check=check_protocol)
            for path in sorted(run.path.glob("protocol/*/result.json"))
        },
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
    records = [
        {
            "layer": record["layer"],
            "redundancy": record["redundancy"],
            "kernels": whole,
            "kernels_kept": kept,
        }
        for record in last_epoch(results["overlap"])
        for whole, kept in [counts.get(record["layer"], (None, None))]
    ]
    caption = "Redundancy of every layer's channels"
    caption += ", and the share of its kernels that were pruned." if counts else "."
    figure = figures.redundancy_and_pruning(records)
    return [draw(run, "overview", figure, caption, records)]


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
