"""The look that all figures share."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.ticker
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jnnk.runs.records import Interval, LayerMeasures

Measure = Callable[[LayerMeasures], Interval | float | None]
"""What a panel shows of a layer's measures."""

# Petroff's ten colours, chosen to be told apart with any colour vision.
PALETTE = mpl.color_sequences["petroff10"]
STYLE = {
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
MOST_NAMES = 24  # layers that fit by name along an axis, and points with markers along a line
MOST_LINES = 12  # layers that can be told apart as lines
_WIDEST = 8.0  # inches; the page scales down what is wider, its text too


def make_axes(rows: int, columns: int, size: tuple[float, float], **options) -> tuple[Figure, Axes]:
    """A figure and its axes, as ``Figure.subplots`` lays them out.

    Args:
        rows: of panels.
        columns: of panels.
        size: (width, height) in inches.
        **options: of ``Figure.subplots``.
    """
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def write_plain_powers(figure: Figure) -> None:
    """Labels logarithmic axes with plain numbers: their own labels are mathematics, which is off.

    Args:
        figure: whose axes are complete.
    """
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if isinstance(axis.get_major_formatter(), mpl.ticker.LogFormatter):
                axis.set_major_formatter(lambda value, _: f"{value:g}")
                axis.set_minor_formatter(mpl.ticker.NullFormatter())


def by_layer(layers: int, height: float, *, least: float = 7.5) -> tuple[float, float]:
    """Size in inches of a figure with layers along its x axis, never too wide to be read.

    Args:
        layers: how many.
        height: of the figure.
        least: its width with few layers.
    """
    return min(max(least, 0.25 * layers + 2), _WIDEST), height


def label_layers(axis: Axes, layers: Sequence[str], *, rotation: float = 60) -> None:
    """Names the layers at 0, 1, ... of the x axis, or every few of them where they are many.

    Args:
        axis: of the panel.
        layers: names of all layers, from the input on; the first is always named.
        rotation: of the names, in degrees.
    """
    step = -(-len(layers) // MOST_NAMES)
    places = range(0, len(layers), step)
    axis.set_xticks(
        places,
        [layers[place] for place in places],
        rotation=rotation,
        ha="center" if rotation == 90 else "right",
    )
    axis.set_xlabel("layer" if step == 1 else f"layer (one in {step} named)")


def label_epochs(*axes: Axes) -> None:
    """Names the x axis after the epochs, and marks whole ones.

    Args:
        *axes: of the panels.
    """
    for axis in axes:
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)


def panels_by_depth(
    panels: Mapping[str, Measure],
    layers: Sequence[str],
    draw: Callable[[Axes, Measure], None],
    *,
    size: tuple[float, float],
) -> Figure:
    """A panel for each measure against depth, two in a row, and one legend of their lines.

    Args:
        panels: label of the y axis to measure.
        layers: names of all layers, from the input on.
        draw: draws a measure's lines, at 0, 1, ... for the layers.
        size: (width, height) in inches.
    """
    with mpl.rc_context(STYLE):
        figure, axes = make_axes(len(panels) // 2, 2, size, sharex=True)
        for axis, (label, measure) in zip(axes.flat, panels.items(), strict=True):
            draw(axis, measure)
            axis.set_ylabel(label)
            axis.set_ylim(bottom=0)
        for axis in axes[-1]:
            label_layers(axis, layers, rotation=90)
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def lines_of(layers: Sequence[str]) -> dict[str, np.ndarray]:
    """The layers to draw as lines, the first and the last among them, and their colours.

    Args:
        layers: names of all layers, from the input on.

    Returns:
        Name to colour (4,), light to dark: at most ``MOST_LINES``, evenly spaced in depth.
    """
    number = min(len(layers), MOST_LINES)
    places = np.linspace(0, len(layers) - 1, number).round().astype(int)
    return {layers[place]: colour for place, colour in zip(places, shades(number), strict=True)}


def legend_of_layers(figure: Figure, axis: Axes, layers: int) -> None:
    """Tells right of the panels which line is which layer, and how many layers have none.

    Args:
        figure: gets the legend.
        axis: has the lines.
        layers: number of all layers.
    """
    handles, names = axis.get_legend_handles_labels()
    title = f"{len(names)} of {layers} layers" if len(names) < layers else None
    figure.legend(handles, names, title=title, loc="outside right upper")


def numbers(values: Sequence[float | None]) -> np.ndarray:
    """The values as an array (number of values,) float64, NaN for None.

    Args:
        values: numbers or None.
    """
    return np.array(values, np.float64)


def line_with_limits(
    axis: Axes, places: Sequence[Any], points: Sequence[Interval | float | None], **style
) -> None:
    """A line of points, those that are intervals with bars up to their limits.

    Many points are a line without markers, their limits a band around it.

    Args:
        axis: to draw on.
        places: numbers or names along the x axis.
        points: all intervals or all numbers, None for missing.
        **style: of ``Axes.errorbar``.
    """
    limits = None
    if points and isinstance(points[0], Interval):
        limits = [numbers([getattr(point, end) for point in points]) for end in ("lower", "upper")]
        points = [point.mean for point in points]
    values = numbers(points)
    if len(points) > MOST_NAMES:
        line = axis.errorbar(places, values, **{**style, "marker": ""})
        if limits is not None:
            colour = line.lines[0].get_color()
            axis.fill_between(places, *limits, color=colour, alpha=0.25, linewidth=0)
        return
    # The interval may miss the mean where hardly anything varies, by rounding.
    errors = limits and np.maximum([values - limits[0], limits[1] - values], 0)
    style = {"marker": "o", "markersize": 4, "capsize": 2, **style}
    axis.errorbar(places, values, yerr=errors, **style)


def shades(number: int) -> np.ndarray:
    """``number`` ordered colours (number, 4), light to dark, to be seen on white and on black."""
    return mpl.colormaps["viridis"](np.linspace(0.78, 0.25, number))
