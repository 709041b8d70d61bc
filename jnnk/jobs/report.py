"""``jnnk report``: results.json, the figures and report.html from what a run folder holds."""

import pathlib
from typing import TypeVar

from jnnk._core.errors import InputError
from jnnk.files.schema import as_object
from jnnk.report.headline import answers, headline
from jnnk.report.page import Section, render
from jnnk.report.sections.overlap import overlap_sections
from jnnk.report.sections.protocol import protocol_sections
from jnnk.report.sections.pruning import prune_sections
from jnnk.report.sections.summary import channels_sections, overview, training_sections
from jnnk.runs.contents import collect, train_config
from jnnk.runs.folder import Run
from jnnk.runs.json_files import write_bytes, write_json
from jnnk.runs.progress import SILENT, Progress

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
    write_json(run.path / "results.json", {"config": run.as_object(), **as_object(results)})
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
