"""What a command found, in one form for all of them."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jnnk.files.schema import TableRow, as_object
from jnnk.runs.folder import Run
from jnnk.runs.progress import Progress


class Answer(NamedTuple):
    """What a command found.

    Attributes:
        values: for machines, in JSON's terms but for arrays and NamedTuples.
        facts: for people, (meaning, value in words) each.
        table: for people, records with the same keys; shown above the facts.
    """

    values: Mapping[str, object]
    facts: list[tuple[str, str]]
    table: Sequence[TableRow] = ()


def report_on(run: Run, progress: Progress) -> Answer:
    """Writes a run folder's report, and tells its headline.

    Args:
        run: the run folder.
        progress: may end it between two parts.
    """
    from jnnk.jobs.report import report

    return headline_of(run, report(run, progress=progress))


def headline_of(run: Run, path: pathlib.Path) -> Answer:
    """The headline of a run folder, and where its report lies.

    Args:
        run: the run folder.
        path: of the report.
    """
    from jnnk.report.headline import answers, headline
    from jnnk.runs.contents import collect, train_config

    numbers, path = headline(train_config(run), collect(run)), path.absolute()
    facts = [(each.question, f"{each.number} {each.text}") for each in answers(numbers)]
    values = {"run": run.path, "report": path, **as_object(numbers)}
    return Answer(values, [*facts, ("report", str(path))])
