"""The look that all figures share."""

import matplotlib as mpl
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
