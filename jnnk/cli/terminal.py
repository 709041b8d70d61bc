"""How answers and progress look: tables by rich or JSON, bars on a terminal or lines in a log.

Prints only on the consoles that ``program.py`` hands it.
"""

import contextlib
import json
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

import rich.progress
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jnnk.cli.answers import Answer
from jnnk.files.schema import TableRow
from jnnk.runs.json_files import to_json
from jnnk.runs.progress import Display, Silent

_TABLE_WIDTH = 140  # characters, at least


class Terminal:
    """Where one command shows its progress and its answer.

    Args:
        out: for answers.
        err: for progress and errors.
        is_json: answers as one JSON object.
        is_quiet: errors only, and answers only as JSON.
    """

    def __init__(
        self, out: Console, err: Console, *, is_json: bool = False, is_quiet: bool = False
    ):
        self._out, self._err = out, err
        self._is_json, self._is_quiet, self._is_mute = is_json, is_quiet, False

    def mute(self) -> None:
        """Shows nothing but errors from now on: another process speaks."""
        self._is_json, self._is_quiet, self._is_mute = False, True, True

    def progress(self) -> Display:
        """Where a job shows how far it is."""
        if self._is_quiet:
            return Silent()
        return _Bars(self._err) if self._err.is_terminal else _Lines(self._err)

    def show(self, answer: Answer) -> None:
        """Prints the answer in the way that was asked for."""
        if self._is_json:
            text = json.dumps(to_json(answer.values), allow_nan=False)
            self._out.print(text, markup=False, soft_wrap=True, highlight=False)
        elif not self._is_quiet:
            if answer.table:
                # Cut off nowhere, neither in a log nor on a narrow terminal.
                self._out.width = max(_TABLE_WIDTH, self._out.width)
                self._out.print(_table(answer.table), crop=False)
            width = max(len(meaning) for meaning, _ in answer.facts)
            for meaning, value in answer.facts:  # no table: a path must not be broken into lines
                line = f"{_plain(meaning.ljust(width))}  [bold]{_plain(value)}[/]"
                self._out.print(line, soft_wrap=True, highlight=False)

    def error(self, message: str) -> None:
        """Prints one line that says what was wrong with the input."""
        line = f"[bold red]error:[/] {_plain(message)}"
        self._err.print(line, soft_wrap=True, highlight=False)

    def note(self, message: str) -> None:
        """Prints a line beside the answer."""
        if self._is_mute:
            return
        self._err.print(_plain(message), soft_wrap=True, highlight=False)


def _table(records: Sequence[TableRow]) -> Table:
    table = Table()
    for name, value in records[0].items():
        table.add_column(_plain(name), justify="left" if isinstance(value, str) else "right")
    for record in records:
        table.add_row(*map(_cell, record.values()))
    return table


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else _plain(str(value))


def _plain(text: str) -> str:
    """Text as rich's markup, without what would move the cursor or is no UTF-8."""
    return escape(re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", _escaped, text))


def _escaped(character: re.Match[str]) -> str:
    return ascii(character[0])[1:-1]


class _Notes:
    """Where progress is shown, and a line now and then."""

    def __init__(self, console: Console):
        self._console = console

    def note(self, message: str) -> None:
        self._console.print(_plain(message), soft_wrap=True, highlight=False)


class _Bars(_Notes):
    """Progress as bars with the time left, on a terminal."""

    @contextlib.contextmanager
    def task(self, description: str, *, total: int, unit: str) -> Iterator["_Bar"]:
        columns = (
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[unit]}"),
            rich.progress.TextColumn("{task.fields[values]}"),
            rich.progress.TimeRemainingColumn(),
        )
        with rich.progress.Progress(*columns, console=self._console) as progress:
            yield _Bar(progress, progress.add_task(description, total=total, unit=unit, values=""))


class _Bar:
    def __init__(self, progress: rich.progress.Progress, task: rich.progress.TaskID):
        self._progress, self._task = progress, task

    def advance(self, amount: int = 1, **values: float) -> None:
        if values:
            self._progress.update(self._task, values=_values(values))
        self._progress.update(self._task, advance=amount)


class _Lines(_Notes):
    """Progress as a line now and then, in a log."""

    @contextlib.contextmanager
    def task(self, description: str, *, total: int, unit: str) -> Iterator["_Line"]:
        line = _Line(self._console, description, total, unit)
        yield line
        line.say()


class _Line:
    _EVERY = 10.0  # seconds

    def __init__(self, console: Console, description: str, total: int, unit: str):
        self._console, self._description = console, description
        self._total, self._unit = total, unit
        self._done, self._values = 0, ""
        self._started = self._said = time.monotonic()

    def advance(self, amount: int = 1, **values: float) -> None:
        self._done += amount
        self._values = _values(values) or self._values
        if time.monotonic() - self._said > self._EVERY:
            self.say()

    def say(self) -> None:
        self._said = time.monotonic()
        passed = self._said - self._started
        left = ""
        if 0 < self._done < self._total:
            left = f", about {passed * (self._total - self._done) / self._done:.0f} s left"
        text = f"{self._done}/{self._total} {self._unit}, {passed:.0f} s{left} {self._values}"
        self._console.print(
            f"{self._description}: {text}".rstrip(), soft_wrap=True, markup=False, highlight=False
        )


def _values(values: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items())
