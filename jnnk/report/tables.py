"""Records as tables for papers and spreadsheets: CSV, LaTeX and Markdown.

A table is a list of rows, each a dict or a record (a dataclass, which lies in its row as it lies in
JSON); the keys of the first head the columns, and what another lacks is an empty cell.
"""

import csv
import dataclasses
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jnnk.runs.json_files import to_json

_OF_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n")
Records = Sequence[Any]
"""Rows of a table, dicts or records."""
_Rows = Sequence[Mapping[str, Any]]

# A bracket or star at the start of a row would belong to the line break before it.
_LATEX = {
    "\\": r"\textbackslash{}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "[": "{[}", "]": "{]}", "*": "{*}",
}  # fmt: skip


def to_csv(records: Records, *, digits: int | None = None) -> str:
    """Comma-separated values; empty cells for None.

    A text that a spreadsheet would take for a formula (it begins with ``=``, ``+``, ``-``, ``@``, a
    tab or a line's end) gets a ``'`` in front, which spreadsheets do not show. Numbers stay.

    Args:
        records: the table.
        digits: significant digits of floats; full precision where None.
    """

    def cell(value: Any) -> Any:
        if isinstance(value, str):
            text = re.sub(r"[\r\n]", " ", value)  # readers differ on which of them end a row
            return f"'{text}" if value.startswith(_OF_FORMULAS) else text
        return value if digits is None or not isinstance(value, float) else f"{value:.{digits}g}"

    rows = _rows(records)
    columns = _columns(rows)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(cell, columns))
    writer.writerows([cell(row.get(name)) for name in columns] for row in rows)
    return out.getvalue()


def to_latex(records: Records, *, caption: str) -> str:
    """A LaTeX ``table`` in the style of booktabs, which the document must load.

    Args:
        records: the table.
        caption: plain text.
    """
    rows = _rows(records)
    columns = "".join("r" if _is_numeric(rows, name) else "l" for name in _columns(rows))
    head, *body = [" & ".join(map(_escape, cells)) + r" \\" for cells in _cells(rows)]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_escape(_cell(caption))}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            head,
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def to_markdown(records: Records) -> str:
    """A GitHub table, numbers to the right; names are plain text, whatever they hold."""
    rows = _rows(records)
    head, *body = ["| " + " | ".join(map(_plain, cells)) + " |" for cells in _cells(rows)]
    rule = ("---:" if _is_numeric(rows, name) else "---" for name in _columns(rows))
    return "\n".join([head, "| " + " | ".join(rule) + " |", *body, ""])


def _rows(records: Records) -> _Rows:
    """The records as dicts."""
    return [to_json(each) if dataclasses.is_dataclass(each) else each for each in records]


def _columns(rows: _Rows) -> list[str]:
    """The keys of the first row."""
    if not rows:
        raise ValueError("records: expected at least one record, got none")
    return list(rows[0])


def _cells(rows: _Rows) -> list[list[str]]:
    """The table as texts, its head first."""
    columns = _columns(rows)
    return [[*map(_cell, columns)], *([_cell(row.get(name)) for name in columns] for row in rows)]


def _cell(value: Any) -> str:
    """A value as text: four digits of a float, a dash for None."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else " ".join(str(value).splitlines())


def _is_numeric(rows: _Rows, column: str) -> bool:
    """Whether a column holds nothing but numbers and None."""
    return all(isinstance(row.get(column), int | float | None) for row in rows)


def _plain(text: str) -> str:
    """A text without what Markdown would take for its own."""
    return re.sub(r"([\\`*\[\]<>|&])", r"\\\1", text)


def _escape(text: str) -> str:
    """A text without what LaTeX would take for its own."""
    return "".join(_LATEX.get(character, character) for character in text)
