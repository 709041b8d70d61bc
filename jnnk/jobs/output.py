"""Figures and tables as files, the same for every job."""

import io
import pathlib
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jnnk.runs import write_bytes, write_json
from jnnk.tables import Records, to_csv, to_latex, to_markdown


def save_figure(folder: pathlib.Path, name: str, figure: Figure) -> bytes:
    """Writes ``NAME.png`` and ``NAME.svg``, byte for byte the same for the same figure.

    Returns:
        The SVG.
    """
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata=metadata)
        write_bytes(folder / f"{name}.{kind}", buffer.getvalue())
    return buffer.getvalue()


def save_table(folder: pathlib.Path, name: str, records: Records, *, caption: str) -> None:
    """Writes ``NAME.csv`` and ``NAME.tex``."""
    write_bytes(folder / f"{name}.csv", to_csv(records).encode())
    write_bytes(folder / f"{name}.tex", to_latex(records, caption=caption).encode())


def save_markdown(folder: pathlib.Path, name: str, records: Records) -> None:
    """Writes ``NAME.md``."""
    write_bytes(folder / f"{name}.md", to_markdown(records).encode())


def save_study(
    folder: pathlib.Path,
    records: list[dict[str, Any]],
    summary: list[dict[str, Any]],
    *,
    caption: str,
    figure: tuple[str, Figure],
) -> None:
    """Writes what a study found.

    Args:
        folder: gets ``results.json`` and ``summary`` as JSON, CSV, LaTeX and Markdown.
        records: of single measurements.
        summary: means of them.
        caption: of the summary.
        figure: its name, and itself.
    """
    write_json(folder / "results.json", records)
    write_json(folder / "summary.json", summary)
    save_table(folder, "summary", summary, caption=caption)
    save_markdown(folder, "summary", summary)
    save_figure(folder, *figure)


def mean_and_std(values: list[float | None]) -> tuple[float | None, float | None]:
    """Mean and standard deviation (n - 1) of what is not None; None where there are too few."""
    known = [value for value in values if value is not None]
    mean = float(np.mean(known)) if known else None
    return mean, float(np.std(known, ddof=1)) if len(known) > 1 else None


def percent(share: float) -> str:
    """A share in words, such as ``"12.30 %"``."""
    return f"{100 * share:.2f} %"
