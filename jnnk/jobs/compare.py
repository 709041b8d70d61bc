"""``jnnk report A B``: one page on several runs side by side."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from jnnk._core.errors import InputError
from jnnk.report.headline import Headline, headline
from jnnk.report.page import check_page, render
from jnnk.report.sections.comparison import comparison_answer, comparison_sections
from jnnk.runs.contents import collect, train_config
from jnnk.runs.folder import Run
from jnnk.runs.json_files import write_bytes


class RunHeadline(NamedTuple):
    """A run of a comparison."""

    run: pathlib.Path  # its folder
    headline: Headline  # its numbers


def compare(runs: Sequence[Run], path: pathlib.Path) -> list[RunHeadline]:
    """Writes a page that compares what two or more folders hold, without measuring anything.

    Raises:
        InputError: if a run is given twice, or what lies at ``path`` is not a page of jnnk's.
    """
    seen: set[pathlib.Path] = set()
    for run in runs:
        if run.path in seen:
            raise InputError(f"{run.path}: given twice; name each run folder once")
        seen.add(run.path)
    check_page(path)
    by_name = dict(zip(_names(runs), runs, strict=True))
    results = {name: collect(run) for name, run in by_name.items()}
    numbers = {name: headline(train_config(run), results[name]) for name, run in by_name.items()}
    page = render(
        f"{' and '.join(by_name)} compared",
        ", ".join(f"{name}: {found.model} on {found.dataset}" for name, found in numbers.items()),
        [comparison_answer(name, found) for name, found in numbers.items()],
        None,
        comparison_sections(by_name, numbers, results),
    )
    write_bytes(path, page.encode())
    return [RunHeadline(by_name[name].path, found) for name, found in numbers.items()]


def _names(runs: Sequence[Run]) -> list[str]:
    """The folders' names, or their whole paths where two are the same."""
    names = [run.path.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]
