"""The look that all figures share, and how their panels are made."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import LogFormatter, NullFormatter
from matplotlib.typing import ColorType

from jnnk.runs.records import Interval, Spread

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

# Petroff's ten colours, chosen to be told apart with any colour vision.
PALETTE = mpl.color_sequences["petroff10"]
STYLE: "dict[RcKeyType, Any]" = {
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 10,
    "figure.dpi": 120,
    "legend.frameon": False,
    "axes.prop_cycle": cycler(color=PALETTE),
    "svg.hashsalt": "jnnk",  # the same figure gives the same file
    "text.parse_math": False,  # a name with two dollar signs is a name
}
MOST_POINTS = 24  # with markers along a line


@contextlib.contextmanager
def panels(
    rows: int, columns: int, size: tuple[float, float], *, grid: bool = True, **options: Any
) -> Iterator[tuple[Figure, np.ndarray]]:
    """A figure of several panels in our style, which lasts as long as the context.

    Args:
        rows: of panels.
        columns: of panels.
        size: (width, height) in inches.
        grid: whether lines mark the ticks.
        **options: of ``Figure.subplots``.

    Yields:
        The figure, and its axes (rows, columns).
    """
    with mpl.rc_context({**STYLE, "axes.grid": grid}):
        figure = Figure(figsize=size, layout="constrained")
        yield figure, figure.subplots(rows, columns, squeeze=False, **options)


@contextlib.contextmanager
def panel(size: tuple[float, float], *, grid: bool = True) -> Iterator[tuple[Figure, Axes]]:
    """A figure of one panel in our style, which lasts as long as the context.

    Args:
        size: (width, height) in inches.
        grid: whether lines mark the ticks.

    Yields:
        The figure, and its axes.
    """
    with panels(1, 1, size, grid=grid) as (figure, axes):
        yield figure, axes[0, 0]


@contextlib.contextmanager
def panel_each(
    number: int, most: int, size: tuple[float, float], **options: Any
) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure of so many panels without grids, a row of ``most`` below the other.

    Args:
        number: of panels.
        most: panels in a row.
        size: (width, height) of a panel, in inches.
        **options: of ``Figure.subplots``.

    Yields:
        The figure, and the axes of its panels.
    """
    columns = min(number, most)
    rows = -(-number // columns)
    whole = (size[0] * columns, size[1] * rows)
    with panels(rows, columns, whole, grid=False, **options) as (figure, axes):
        yield figure, list(axes.flat[:number])
        for spare in axes.flat[number:]:
            spare.remove()


def write_plain_powers(figure: Figure) -> None:
    """Labels logarithmic axes with plain numbers: their own labels are mathematics, which is off.

    Args:
        figure: whose axes are complete.
    """
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if isinstance(axis.get_major_formatter(), LogFormatter):
                axis.set_major_formatter(lambda value, _: f"{value:g}")
                axis.set_minor_formatter(NullFormatter())


def label_epochs(*axes: Axes) -> None:
    """Names the x axis after the epochs, and marks whole ones.

    Args:
        *axes: of the panels.
    """
    for axis in axes:
        axis.set_xlabel("epoch")
        axis.locator_params(axis="x", integer=True)


def legend_beside(axis: Axes, *, title: str | None = None) -> None:
    """A legend at the right of a panel.

    Args:
        axis: of the panel.
        title: of the legend.
    """
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), title=title)


def legend_above(figure: Figure, axis: Axes, *, columns: int) -> None:
    """One legend for all panels, above them.

    Args:
        figure: gets the legend.
        axis: has the lines.
        columns: of the legend.
    """
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=columns)


class LineStyle(TypedDict):
    """What tells a line from the others, as ``Axes.plot`` takes it.

    Attributes:
        color: of `PALETTE`.
        linestyle: its dashes.
        label: in the legend.
    """

    color: ColorType
    linestyle: str
    label: str


def line_style(index: int, label: str, dashes: str) -> LineStyle:
    """Colour, dashes and label of a line: dashes tell apart lines that coincide.

    Args:
        index: of the line in its panel, which gives the colour.
        label: in the legend.
        dashes: a line style of matplotlib.
    """
    return {"color": PALETTE[index % len(PALETTE)], "linestyle": dashes, "label": label}


def line_with_limits(
    axis: Axes, places: Sequence[Any], points: Sequence[Interval | float | None], **style: Any
) -> None:
    """A line of points, those that are intervals with bars up to their limits.

    Many points are a line without markers, their limits a band around it.

    Args:
        axis: to draw on.
        places: numbers or names along the x axis.
        points: all intervals or all numbers, None for missing.
        **style: of ``Axes.errorbar``.
    """
    intervals = [point for point in points if isinstance(point, Interval)]
    values = numbers([p.mean if isinstance(p, Interval) else p for p in points])
    lower = numbers([interval.lower for interval in intervals])
    upper = numbers([interval.upper for interval in intervals])
    if len(points) > MOST_POINTS:
        line = axis.errorbar(places, values, **{**style, "marker": ""})
        if intervals:
            colour = line.lines[0].get_color()
            axis.fill_between(places, lower, upper, color=colour, alpha=0.25, linewidth=0)
        return
    # The interval may miss the mean where hardly anything varies, by rounding.
    errors = np.maximum([values - lower, upper - values], 0) if intervals else None
    style = {"marker": "o", "markersize": 4, "capsize": 2, **style}
    axis.errorbar(places, values, yerr=errors, **style)


def means_and_deviations(
    spreads: Sequence[Spread], *, factor: float = 100
) -> tuple[np.ndarray, list[float]]:
    """Means and standard deviations to draw, NaN for a missing mean and 0 for a deviation.

    Args:
        spreads: the numbers.
        factor: what to multiply them by: 100 makes percent of shares.

    Returns:
        (number of spreads,) each.
    """
    means = factor * numbers([each.mean for each in spreads])
    return means, [factor * (each.std or 0) for each in spreads]


def line_with_deviations(
    axis: Axes, places: Sequence[float], spreads: Sequence[Spread], *, factor: float, **style: Any
) -> None:
    """A line of means with bars of one standard deviation.

    Args:
        axis: to draw on.
        places: along the x axis.
        spreads: along the y axis.
        factor: what to multiply them by.
        **style: of ``Axes.errorbar``.
    """
    means, deviations = means_and_deviations(spreads, factor=factor)
    axis.errorbar(places, means, yerr=deviations, markersize=5, capsize=2, **style)


def overlap_map(axis: Axes, matrix: np.ndarray, **options: Any) -> AxesImage:
    """Overlap of pairs of channels as colours from 0 to the largest, grey where there is none.

    Args:
        axis: to draw on.
        matrix: (C, C') overlap, NaN for dead channels.
        **options: of ``Axes.imshow``.
    """
    colours = mpl.colormaps["viridis"].with_extremes(bad="0.85")
    largest = np.nanmax(matrix, initial=0) or 1
    image = axis.imshow(matrix, cmap=colours, vmin=0, vmax=largest, **options)
    axis.set(xticks=[], yticks=[])
    return image


def numbers(values: Sequence[float | None]) -> np.ndarray:
    """The values as an array (number of values,) float64, NaN for None.

    Args:
        values: numbers or None.
    """
    return np.array(values, np.float64)


def shades(number: int) -> np.ndarray:
    """``number`` ordered colours (number, 4), light to dark, to be seen on white and on black."""
    return mpl.colormaps["viridis"](np.linspace(0.78, 0.25, number))
