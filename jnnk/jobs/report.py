"""``jnnk report``: results.json, the figures and report.html from what a run folder holds."""

import pathlib
from typing import Any

from matplotlib.figure import Figure

from jnnk import figures
from jnnk.errors import InputError
from jnnk.jobs.output import percent, save_figure
from jnnk.jobs.overlap_files import read_arrays, read_records
from jnnk.jobs.overlap_report import last_epoch, overlap_sections
from jnnk.jobs.protocol_report import protocol_sections
from jnnk.jobs.prune_report import prune_sections
from jnnk.report import Section, render
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
        *prune_sections(run, results["pruning"]),
        *protocol_sections(run, results["protocols"]),
    ]
    if not sections:
        raise InputError(f"{run.path} holds no results yet; run jnnk train, overlap or prune first")
    config = results["config"]
    page = render(
        f"{config['model']} on {config['dataset']}",
        f"{config['epochs']} epochs of {config['optimizer']}, seed {config['seed']}",
        summary(results),
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
    and ``finetuning``, its lines; ``protocols``, name to record of
    :func:`jnnk.jobs.protocol.protocol`. Empty where not run.
    """
    records = read_records(run.path)
    pruning = run.path / "prune" / "result.json"
    return {
        "config": run.config,
        "training": read_json_lines(run.path / "metrics.jsonl"),
        "overlap": records,
        "overlap_matrices": {
            record["layer"]: read_arrays(run.path, record).overlap for record in last_epoch(records)
        },
        "pruning": read_json(pruning) if pruning.exists() else None,
        "finetuning": read_json_lines(run.path / "prune" / "metrics.jsonl"),
        "protocols": {
            path.parent.name: read_json(path)
            for path in sorted(run.path.glob("protocol/*/result.json"))
        },
    }


def summary(results: dict[str, Any]) -> list[tuple[str, str]]:
    """The answers in short: (number, what it is) each.

    Args:
        results: of :func:`collect`.
    """
    cards = []
    if results["training"]:
        cards.append((percent(results["training"][-1]["test_accuracy"]), "test accuracy"))
    if results["overlap"]:
        last = last_epoch(results["overlap"])
        deepest = last[-1]
        most = max(last, key=lambda record: record["redundancy"] or 0.0)
        cards.append((f"{deepest['overlap'] or 0:.3f}", f"channel overlap in {deepest['layer']}"))
        cards.append((f"{most['redundancy'] or 0:.2f}", f"highest redundancy, in {most['layer']}"))
        cards.append((percent(deepest["loo_error"]), f"leave-one-out error of {deepest['layer']}"))
    if results["pruning"]:
        pruned = results["pruning"]["pruned"]
        share = results["pruning"]["share_requested"]
        cards.append((percent(share), f"kernels pruned by {results['pruning']['criterion']}"))
        cards.append((percent(pruned["accuracy_finetuned"]), "test accuracy pruned and fine-tuned"))
    return cards


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
                _save(
                    run,
                    "training",
                    figures.training_curves(results["training"]),
                    "Training loss and accuracy by epoch.",
                )
            ],
        )
    ]


def _save(run: Run, name: str, figure: Figure, caption: str) -> tuple[str, bytes, str]:
    """Writes the figure; returns what a section needs."""
    return name, save_figure(run.path / "figures", name, figure), caption
