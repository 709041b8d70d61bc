"""``jnnk report A B``: one page on several runs side by side."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from jnnk._core.errors import InputError
from jnnk.jobs.report import collect
from jnnk.report.figures import comparison as figures
from jnnk.report.headline import headline
from jnnk.report.output import figure_bytes, percent
from jnnk.report.page import Answer, Drawing, Section, check_page, picture, render
from jnnk.report.tables import to_csv
from jnnk.runs.data_record import read_note
from jnnk.runs.divergence import Divergence
from jnnk.runs.folder import DATA_RECORD, Run, read_json, to_json, write_bytes
from jnnk.runs.overlap_files import last_epoch

_ROWS = {
    "test_accuracy": "test accuracy",
    "most_redundant_layer": "most redundant layer",
    "redundancy": "its redundancy",
    "overlap": "overlap in the last layer measured",
    "loo_error": "leave-one-out error there",
    "dead_channels": "dead channels",
    "criterion": "pruned by",
    "share": "conv kernels pruned",
    "best_criterion": "criterion that spares most",
    "best_share": "conv kernels it spares",
    "pruned": "test accuracy, pruned",
    "finetuned": "test accuracy, fine-tuned",
    "params": "parameters, before and after",
    "macs": "MACs an image, before and after",
    "latency": "latency, before and after",
}
_SHARES = ("test_accuracy", "loo_error", "share", "best_share", "pruned", "finetuned")


def compare(runs: Sequence[Run], path: pathlib.Path) -> list[dict[str, Any]]:
    """Writes a page that compares what the folders hold, without measuring anything.

    Args:
        runs: two or more run folders.
        path: of the page.

    Returns:
        The headline of every run (see :func:`jnnk.report.headline.headline`) with its ``run``.

    Raises:
        InputError: if a run is given twice, or what lies at ``path`` is not a page of jnnk's.
    """
    _check_different(runs)
    check_page(path)
    names = _names(runs)
    results = dict(zip(names, map(collect, runs), strict=True))
    numbers = {name: headline(found) for name, found in results.items()}
    page = render(
        f"{' and '.join(names)} compared",
        ", ".join(
            f"{name}: {found['model']} on {found['dataset']}" for name, found in numbers.items()
        ),
        [_answer(name, found) for name, found in numbers.items()],
        None,
        [
            _numbers_section(numbers),
            *_settings_section(dict(zip(names, runs, strict=True))),
            *_curves(results),
        ],
    )
    write_bytes(path, page.encode())
    return [
        {"run": str(run.path), **found} for run, found in zip(runs, numbers.values(), strict=True)
    ]


def _check_different(runs: Sequence[Run]) -> None:
    seen: set[pathlib.Path] = set()
    for run in runs:
        if run.path in seen:
            raise InputError(f"{run.path}: given twice; name each run folder once")
        seen.add(run.path)


def _names(runs: Sequence[Run]) -> list[str]:
    """The folders' names, or their whole paths where two are the same."""
    names = [run.path.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]


def _answer(name: str, numbers: dict[str, Any]) -> Answer:
    said = []
    if "redundancy" in numbers:
        said.append(f"redundancy up to {numbers['redundancy'] or 0:.2f}")
    if "share" in numbers:
        said.append(f"{percent(numbers['share'])} of its kernels pruned")
        said.append(f"{percent(numbers['finetuned'])} after fine-tuning")
    for part, at in numbers.get("diverged", {}).items():
        said.append(f"{part} diverged at {Divergence(**at)} and is left out")
    accuracy = percent(numbers["test_accuracy"]) if "test_accuracy" in numbers else "-"
    return Answer(name, accuracy, ", ".join(["of the test images", *said]))


def _numbers_section(numbers: dict[str, dict[str, Any]]) -> Section:
    rows = [
        [meaning, *(_in_words(field, found.get(field)) for found in numbers.values())]
        for field, meaning in _ROWS.items()
        if any(found.get(field) is not None for found in numbers.values())
    ]
    return Section("How do they compare?", "", table=(["", *numbers], rows))


def _in_words(field: str, value: Any) -> Any:
    if value is None:
        return None
    if field in _SHARES:
        return percent(value)
    if field == "latency":
        return f"{value['whole']:.2f} to {value['compacted']:.2f} ms for {value['images']} images"
    return " to ".join(f"{count:,}" for count in value) if isinstance(value, list) else value


def _settings_section(runs: dict[str, Run]) -> list[Section]:
    """The settings in which the runs differ."""
    settings: dict[str, dict[str, Any]] = {}
    for name, run in runs.items():
        path = run.path / "config.json"
        settings[name] = {
            f"train: {key}": _noted(key, value, path) for key, value in run.config.items()
        }
        for part in ("overlap", "prune"):
            path = run.path / part / "settings.json"
            found = read_json(path, kind=dict[str, Any]) if path.exists() else {}
            settings[name] |= {f"{part}: {key}": value for key, value in found.items()}
    keys = dict.fromkeys(key for found in settings.values() for key in found)
    rows = [[key, *(_setting(found.get(key)) for found in settings.values())] for key in keys]
    rows = [row for row in rows if len(set(map(str, row[1:]))) > 1]
    if not rows:
        return []
    return [Section("Which settings differ?", "", table=(["setting", *runs], rows))]


def _noted(key: str, value: Any, path: pathlib.Path) -> Any:
    """A setting, or the start of every digest of the data."""
    if key != DATA_RECORD:
        return value
    parts = read_note(value, path).fingerprint
    return [f"{part} {digest[:8]}" for part, digest in parts.items()]


def _setting(value: Any) -> Any:
    return " ".join(map(str, value)) if isinstance(value, list) else value


def _curves(results: dict[str, dict[str, Any]]) -> list[Section]:
    """A section for every part that more than one run has."""
    training = {name: found["training"] for name, found in results.items()}
    measured = {n: last_epoch(found["overlap"]) for n, found in results.items() if found["overlap"]}
    swept = {
        name: [
            {"criterion": found["pruning"]["criterion"], **point}
            for point in found["pruning"]["sweep"]["criteria"][found["pruning"]["criterion"]]
        ]
        for name, found in results.items()
        if found["pruning"]
    }
    parts = (
        ("How do they learn?", training, "accuracy_by_epoch", figures.accuracy_by_epoch,
         "Test accuracy as training goes on."),
        ("Where is each redundant?", measured, "overlap_by_depth", figures.overlap_by_depth,
         "Mean overlap of channel pairs and redundancy by layer, last epoch; bars or "
         "bands are 95 % bootstrap intervals over images."),
        ("What does pruning cost each?", swept, "sweep_by_run", figures.sweep_by_run,
         "Accuracy without fine-tuning by the share of conv kernels pruned, each run by its own "
         "criterion."),
    )  # fmt: skip
    sections = []
    for title, found, name, draw, caption in parts:
        runs = {run: rows for run, rows in found.items() if rows}
        if len(runs) > 1:
            sections.append(Section(title, "", [_drawing(name, draw(runs), caption, runs)]))
    return sections


def _drawing(name: str, figure: Figure, caption: str, runs: Mapping[str, Sequence]) -> Drawing:
    """A figure, its numbers a row for each run's records."""
    table = [{"run": run, **to_json(row)} for run, rows in runs.items() for row in rows]
    return Drawing(name, picture(figure_bytes(figure, "svg"), caption), caption, to_csv(table))
