"""What the page of a comparison says of several runs, each by its name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from matplotlib.figure import Figure

from jnnk.report.figures import comparison as figures
from jnnk.report.headline import Headline, OverlapHeadline, PruningHeadline
from jnnk.report.output import figure_bytes, percent
from jnnk.report.page import Answer, Drawing, Section, picture
from jnnk.report.tables import to_csv
from jnnk.runs.data_note import DataNote
from jnnk.runs.folder import Run
from jnnk.runs.json_files import to_json
from jnnk.runs.overlap_files import last_epoch
from jnnk.runs.part_settings import read_settings
from jnnk.runs.records import Latency, Results
from jnnk.runs.settings import OverlapConfig, PruneConfig

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


def comparison_answer(name: str, numbers: Headline) -> Answer:
    """The headline of a run in a line."""
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


def comparison_sections(
    runs: Mapping[str, Run], numbers: Mapping[str, Headline], results: Mapping[str, Results]
) -> list[Section]:
    """The headlines, the settings that differ, and a section for what more than one run has."""
    return [_numbers(numbers), *_settings(runs), *_curves(results)]


def _numbers(numbers: Mapping[str, Headline]) -> Section:
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


def _settings(runs: Mapping[str, Run]) -> list[Section]:
    """The settings in which the runs differ."""
    settings: dict[str, dict[str, Any]] = {}
    for name, run in runs.items():
        settings[name] = {f"train: {key}": value for key, value in run.config.items()}
        if run.data is not None:
            settings[name]["train: data"] = _digests(run.data)
        for part, kind in (("overlap", OverlapConfig), ("prune", PruneConfig)):
            found = read_settings(run.path / part / "settings.json", kind)
            settings[name] |= {f"{part}: {key}": value for key, value in found.items()}
    keys = dict.fromkeys(key for found in settings.values() for key in found)
    rows = [[key, *(_setting(found.get(key)) for found in settings.values())] for key in keys]
    rows = [row for row in rows if len(set(map(str, row[1:]))) > 1]
    return [Section("Which settings differ?", "", table=(["setting", *runs], rows))] if rows else []


def _digests(note: DataNote) -> list[str]:
    """The start of every digest of the data."""
    return [f"{part} {digest[:8]}" for part, digest in note.fingerprint.items()]


def _setting(value: Any) -> Any:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else value


def _curves(results: Mapping[str, Results]) -> list[Section]:
    """A section for every part that more than one run has."""
    training = {name: found.training for name, found in results.items() if found.training}
    measured = {name: last_epoch(found.overlap) for name, found in results.items() if found.overlap}
    pruned = {name: found.pruning for name, found in results.items() if found.pruning}
    swept = {
        name: [
            {"criterion": found.criterion, **asdict(point)}
            for point in found.sweep.criteria[found.criterion]
        ]
        for name, found in pruned.items()
    }
    return [
        *_lines(
            "How do they learn?", "accuracy_by_epoch", figures.accuracy_by_epoch, training,
            training, "Test accuracy as training goes on.",
        ),
        *_lines(
            "Where is each redundant?", "overlap_by_depth", figures.overlap_by_depth, measured,
            measured, "Mean overlap of channel pairs and redundancy by layer, last epoch; bars or "
            "bands are 95 % bootstrap intervals over images.",
        ),
        *_lines(
            "What does pruning cost each?", "sweep_by_run", figures.sweep_by_run, pruned,
            swept, "Accuracy without fine-tuning by the share of conv kernels pruned, each run by "
            "its own criterion.",
        ),
    ]  # fmt: skip


def _lines(
    title: str,
    name: str,
    draw: Callable[[Any], Figure],
    runs: Mapping[str, Any],
    rows: Mapping[str, Sequence[Any]],
    caption: str,
) -> list[Section]:
    """A figure with a line for every run, and its rows; nothing where there is but one run."""
    if len(runs) < 2:
        return []
    table = [{"run": run, **to_json(row)} for run in runs for row in rows[run]]
    content = picture(figure_bytes(draw(runs), "svg"), caption)
    return [Section(title, "", [Drawing(name, content, caption, to_csv(table))])]
