"""The look that all figures share."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
}


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


def values_of(records: Sequence[dict], field: str) -> np.ndarray:
    """A field of all records, NaN where there is none: (number of records,) float64.

    Args:
        records: have the field.
        field: its name.
    """
    return np.array([record[field] for record in records], np.float64)


def line_with_limits(
    axis: Axes, records: Sequence[dict], x: str, y: str, *, factor: float = 1, **style
) -> None:
    """A line of ``y`` against ``x``, with bars up to ``y_lower`` and ``y_upper`` where they exist.

    Args:
        axis: to draw on.
        records: a point each.
        x: field of numbers or names.
        y: field of numbers, None for missing.
        factor: multiplies ``y`` and its limits.
        **style: of ``Axes.errorbar``.
    """
    values, errors = factor * values_of(records, y), None
    if records and f"{y}_lower" in records[0]:
        lower, upper = (factor * values_of(records, f"{y}_{end}") for end in ("lower", "upper"))
        # The interval may miss the mean where hardly anything varies, by rounding.
        errors = np.maximum([values - lower, upper - values], 0)
    style = {"fmt": "o-", "markersize": 4, "capsize": 2, **style}
    axis.errorbar([record[x] for record in records], values, yerr=errors, **style)


def shades(number: int) -> np.ndarray:
    """``number`` ordered colours (number, 4), light to dark, to be seen on white and on black."""
    return mpl.colormaps["viridis"](np.linspace(0.78, 0.25, number))
