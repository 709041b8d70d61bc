"""Records as tables for papers and spreadsheets: CSV, LaTeX and Markdown.

A table is a list of records, dicts; the keys of the first head the columns, and what another lacks
is an empty cell.
"""

import csv
import io
import re
from collections.abc import Sequence
from typing import Any

_OF_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n")
Records = Sequence[dict[str, Any]]

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

    def cell(value):
        if isinstance(value, str):
            text = re.sub(r"[\r\n]", " ", value)  # readers differ on which of them end a row
            return f"'{text}" if value.startswith(_OF_FORMULAS) else text
        return value if digits is None or not isinstance(value, float) else f"{value:.{digits}g}"

    columns = _columns(records)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(cell, columns))
    writer.writerows([cell(record.get(name)) for name in columns] for record in records)
    return out.getvalue()


def to_latex(records: Records, *, caption: str) -> str:
    """A LaTeX ``table`` in the style of booktabs, which the document must load.

    Args:
        records: the table.
        caption: plain text.
    """
    rows = [[_escape(cell) for cell in row] for row in _cells(records)]
    columns = "".join("r" if _is_numeric(records, name) else "l" for name in _columns(records))
    head, *body = [" & ".join(row) + r" \\" for row in rows]
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
    head, *body = ["| " + " | ".join(map(_plain, row)) + " |" for row in _cells(records)]
    rule = ("---:" if _is_numeric(records, name) else "---" for name in _columns(records))
    return "\n".join([head, "| " + " | ".join(rule) + " |", *body, ""])


def _columns(records: Records) -> list[str]:
    if not records:
        raise ValueError("records: expected at least one record, got none")
    return list(records[0])


def _cells(records: Records) -> list[list[str]]:
    columns = _columns(records)
    return [[*map(_cell, columns)], *([_cell(r.get(name)) for name in columns] for r in records)]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else " ".join(str(value).splitlines())


def _is_numeric(records: Records, column: str) -> bool:
    return all(isinstance(record.get(column), int | float | None) for record in records)


def _plain(text: str) -> str:
    return re.sub(r"([\\`*\[\]<>|&])", r"\\\1", text)


def _escape(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
