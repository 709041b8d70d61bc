"""``jnnk report A B``: one page on several runs side by side."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from jnnk._core.errors import InputError
from jnnk.jobs.report import collect
from jnnk.jobs.train import train_config
from jnnk.report.figures import comparison as figures
from jnnk.report.headline import Headline, OverlapHeadline, PruningHeadline, headline
from jnnk.report.output import figure_bytes, percent
from jnnk.report.page import Answer, Drawing, Section, check_page, picture, render
from jnnk.report.tables import to_csv
from jnnk.runs.data_record import read_note
from jnnk.runs.folder import DATA_RECORD, Run, read_json, to_json, write_bytes
from jnnk.runs.overlap_files import last_epoch
from jnnk.runs.records import Latency, Results

# What the table says of a run's channels and of its pruning.
_OF_OVERLAP: dict[str, Callable[[OverlapHeadline], Any]] = {
    "most redundant layer": lambda found: found.most_redundant_layer,
    "its redundancy": lambda found: found.redundancy,
    "overlap in the last layer measured": lambda found: found.overlap,
    "leave-one-out error there": lambda found: percent(found.loo_error),
    "dead channels": lambda found: found.dead_channels,
}
_OF_PRUNING: dict[str, Callable[[PruningHeadline], Any]] = {
    "pruned by": lambda found: found.criterion,
    "conv kernels pruned": lambda found: percent(found.share),
    "criterion that spares most": lambda found: found.best_criterion,
    "conv kernels it spares": lambda found: percent(found.best_share),
    "test accuracy, pruned": lambda found: percent(found.pruned),
    "test accuracy, fine-tuned": lambda found: percent(found.finetuned),
    "parameters, before and after": lambda found: _counts(found.params),
    "MACs an image, before and after": lambda found: _counts(found.macs),
    "latency, before and after": lambda found: _latencies(found.latency),
}


class RunHeadline(NamedTuple):
    """A run of a comparison."""

    run: pathlib.Path  # its folder
    headline: Headline  # its numbers


def compare(runs: Sequence[Run], path: pathlib.Path) -> list[RunHeadline]:
    """Writes a page that compares what the folders hold, without measuring anything.

    Args:
        runs: two or more run folders.
        path: of the page.

    Returns:
        The headline of every run.

    Raises:
        InputError: if a run is given twice, or what lies at ``path`` is not a page of jnnk's.
    """
    _check_different(runs)
    check_page(path)
    names = _names(runs)
    results = dict(zip(names, map(collect, runs), strict=True))
    numbers = {
        name: headline(train_config(run), results[name])
        for name, run in zip(names, runs, strict=True)
    }
    page = render(
        f"{' and '.join(names)} compared",
        ", ".join(f"{name}: {found.model} on {found.dataset}" for name, found in numbers.items()),
        [_answer(name, found) for name, found in numbers.items()],
        None,
        [
            _numbers_section(numbers),
            *_settings_section(dict(zip(names, runs, strict=True))),
            *_curves(results),
        ],
    )
    write_bytes(path, page.encode())
    return [RunHeadline(run.path, found) for run, found in zip(runs, numbers.values(), strict=True)]


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


def _answer(name: str, numbers: Headline) -> Answer:
    said = []
    if numbers.overlap is not None:
        said.append(f"redundancy up to {numbers.overlap.redundancy_in_words}")
    if numbers.pruning is not None:
        said.append(f"{percent(numbers.pruning.share)} of its kernels pruned")
        said.append(f"{percent(numbers.pruning.finetuned)} after fine-tuning")
    for part, at in (numbers.diverged or {}).items():
        said.append(f"{part} diverged at {at} and is left out")
    accuracy = "-" if numbers.test_accuracy is None else percent(numbers.test_accuracy)
    return Answer(name, accuracy, ", ".join(["of the test images", *said]))


def _numbers_section(numbers: Mapping[str, Headline]) -> Section:
    """A row for each number that any of the runs has."""
    found = list(numbers.values())
    accuracies = [each.test_accuracy for each in found]
    table = {"test accuracy": [None if each is None else percent(each) for each in accuracies]}
    for meaning, tell in _OF_OVERLAP.items():
        table[meaning] = [each.overlap and tell(each.overlap) for each in found]
    for meaning, tell in _OF_PRUNING.items():
        table[meaning] = [each.pruning and tell(each.pruning) for each in found]
    rows = [[meaning, *cells] for meaning, cells in table.items() if set(cells) != {None}]
    return Section("How do they compare?", "", table=(["", *numbers], rows))


def _counts(pair: tuple[int, int] | None) -> str | None:
    return None if pair is None else " to ".join(f"{count:,}" for count in pair)


def _latencies(times: Latency | None) -> str | None:
    if times is None:
        return None
    return f"{times.whole:.2f} to {times.compacted:.2f} ms for {times.images} images"


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


def _curves(results: Mapping[str, Results]) -> list[Section]:
    """A section for every part that more than one run has."""
    training = {name: found.training for name, found in results.items() if found.training}
    measured = {name: last_epoch(found.overlap) for name, found in results.items() if found.overlap}
    pruned = {name: found.pruning for name, found in results.items() if found.pruning}
    sections = []
    if len(training) > 1:
        drawing = _drawing(
            "accuracy_by_epoch",
            figures.accuracy_by_epoch(training),
            "Test accuracy as training goes on.",
            training,
        )
        sections.append(Section("How do they learn?", "", [drawing]))
    if len(measured) > 1:
        drawing = _drawing(
            "overlap_by_depth",
            figures.overlap_by_depth(measured),
            "Mean overlap of channel pairs and redundancy by layer, last epoch; bars or "
            "bands are 95 % bootstrap intervals over images.",
            measured,
        )
        sections.append(Section("Where is each redundant?", "", [drawing]))
    if len(pruned) > 1:
        drawing = _drawing(
            "sweep_by_run",
            figures.sweep_by_run(pruned),
            "Accuracy without fine-tuning by the share of conv kernels pruned, each run by its own "
            "criterion.",
            {
                name: [
                    {"criterion": found.criterion, **asdict(point)}
                    for point in found.sweep.criteria[found.criterion]
                ]
                for name, found in pruned.items()
            },
        )
        sections.append(Section("What does pruning cost each?", "", [drawing]))
    return sections


def _drawing(name: str, figure: Figure, caption: str, runs: Mapping[str, Sequence]) -> Drawing:
    """A figure, its numbers a row for each record of a run."""
    table = [{"run": run, **to_json(row)} for run, rows in runs.items() for row in rows]
    return Drawing(name, picture(figure_bytes(figure, "svg"), caption), caption, to_csv(table))
