"""Records as tables for papers and spreadsheets: CSV, LaTeX and Markdown.

A table is a list of records, dicts with the same keys in the same order; the keys head the columns.
"""

import csv
import io
from collections.abc import Sequence
from typing import Any

Records = Sequence[dict[str, Any]]

_LATEX = {
    "\\": r"\textbackslash{}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip


def to_csv(records: Records, *, digits: int | None = None) -> str:
    """Comma-separated values; empty cells for None.

    Args:
        records: the table.
        digits: significant digits of floats; full precision where None.
    """

    def cell(value):
        return value if digits is None or not isinstance(value, float) else f"{value:.{digits}g}"

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_columns(records))
    writer.writerows(map(cell, record.values()) for record in records)
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
            rf"\caption{{{_escape(caption)}}}",
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
    """A GitHub table, numbers to the right."""
    head, *body = ["| " + " | ".join(row) + " |" for row in _cells(records)]
    rule = ("---:" if _is_numeric(records, name) else "---" for name in _columns(records))
    return "\n".join([head, "| " + " | ".join(rule) + " |", *body, ""])


def _columns(records: Records) -> list[str]:
    if not records:
        raise ValueError("records: expected at least one record, got none")
    return list(records[0])


def _cells(records: Records) -> list[list[str]]:
    return [_columns(records), *([_cell(value) for value in r.values()] for r in records)]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _is_numeric(records: Records, column: str) -> bool:
    return all(isinstance(record[column], int | float | None) for record in records)


def _escape(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
