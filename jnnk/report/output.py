"""Figures and tables as files, the same for every job."""

import io
import pathlib

import matplotlib as mpl
from matplotlib.figure import Figure

from jnnk.report.figures.style import STYLE, write_plain_powers
from jnnk.report.page import Drawing, picture
from jnnk.report.tables import Records, to_csv, to_latex, to_markdown
from jnnk.runs.folder import Run
from jnnk.runs.json_files import write_bytes, write_json


def save_figure(folder: pathlib.Path, name: str, figure: Figure) -> bytes:
    """Writes ``NAME.png`` and ``NAME.svg``, byte for byte the same for the same figure.

    Returns:
        The SVG.
    """
    drawing = figure_bytes(figure, "svg")
    write_bytes(folder / f"{name}.svg", drawing)
    # Half of the time goes into the layout, so the PNG takes over that of the SVG.
    figure.set_layout_engine("none")
    write_bytes(folder / f"{name}.png", figure_bytes(figure, "png"))
    return drawing


def figure_bytes(figure: Figure, kind: str) -> bytes:
    """The figure as a file, ``"png"`` or ``"svg"``, without the date and version of its making."""
    buffer = io.BytesIO()
    nothing = {"png": {"Software": None}, "svg": {"Date": None}}[kind]
    write_plain_powers(figure)
    # The style names the salt of the SVG's ids, and is asked for texts that are made only now.
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format=kind, metadata=nothing)
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
    records: Records,
    summary: Records,
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


def draw(run: Run, name: str, figure: Figure, caption: str, records: Records) -> Drawing:
    """Writes a figure of the report and its numbers to ``figures/``: PNG, SVG and CSV.

    The page's own CSV has six significant digits, half the size of full precision.

    Args:
        run: the run folder.
        name: of the files.
        figure: the picture.
        caption: one sentence on it.
        records: its numbers.

    Returns:
        What the report's page needs.
    """
    folder = run.path / "figures"
    write_bytes(folder / f"{name}.csv", to_csv(records).encode())
    content = picture(save_figure(folder, name, figure), caption)
    return Drawing(name, content, caption, to_csv(records, digits=6))


def percent(share: float | None) -> str:
    """A share in words, such as ``"12.30 %"``; ``"-"`` where there is none."""
    return "-" if share is None else f"{100 * share:.2f} %"


def points(tolerance: float) -> str:
    """Percentage points in words, such as ``"1 point"``."""
    return f"{tolerance:g} point{'' if tolerance == 1 else 's'}"
