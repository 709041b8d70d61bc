"""Figures and tables as files, the same for every job."""

import io
import pathlib

from matplotlib.figure import Figure

from jnnk.report import Drawing, picture
from jnnk.runs import Run, write_bytes
from jnnk.tables import Records, to_csv, to_latex


def save_figure(folder: pathlib.Path, name: str, figure: Figure) -> bytes:
    """Writes ``NAME.png`` and ``NAME.svg``, byte for byte the same for the same figure.

    Returns:
        The SVG.
    """
    for kind in ("png", "svg"):
        content = figure_bytes(figure, kind)
        write_bytes(folder / f"{name}.{kind}", content)
    return content


def figure_bytes(figure: Figure, kind: str) -> bytes:
    """The figure as a file, ``"png"`` or ``"svg"``, without the date and version of its making."""
    buffer = io.BytesIO()
    nothing = {"png": {"Software": None}, "svg": {"Date": None}}[kind]
    figure.savefig(buffer, format=kind, metadata=nothing)
    return buffer.getvalue()


def save_table(folder: pathlib.Path, name: str, records: Records, *, caption: str) -> None:
    """Writes ``NAME.csv`` and ``NAME.tex``."""
    write_bytes(folder / f"{name}.csv", to_csv(records).encode())
    write_bytes(folder / f"{name}.tex", to_latex(records, caption=caption).encode())


def draw(run: Run, name: str, figure: Figure, caption: str, records: Records) -> Drawing:
    """Writes a figure of the report and its numbers to ``figures/``: PNG, SVG and CSV.

    Args:
        run: the run folder.
        name: of the files.
        figure: the picture.
        caption: one sentence on it.
        records: its numbers.

    Returns:
        What the report's page needs.
    """
    folder, csv = run.path / "figures", to_csv(records)
    write_bytes(folder / f"{name}.csv", csv.encode())
    return Drawing(name, picture(save_figure(folder, name, figure), caption), caption, csv)


def percent(share: float) -> str:
    """A share in words, such as ``"12.30 %"``."""
    return f"{100 * share:.2f} %"


def points(tolerance: float) -> str:
    """Percentage points in words, such as ``"1 point"``."""
    return f"{tolerance:g} point{'' if tolerance == 1 else 's'}"
