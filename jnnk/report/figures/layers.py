"""Panels with the layers of a network along an axis, or a line each."""

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jnnk.report.figures.style import legend_above, panels, shades
from jnnk.runs.records import Interval, LayerMeasures

Measure = Callable[[LayerMeasures], Interval | float | None]
"""What a panel shows of a layer's measures."""

MOST_NAMES = 24  # layers that fit by name along an axis
MOST_LINES = 12  # layers that can be told apart as lines
_WIDEST = 8.0  # inches; the page scales down what is wider, its text too

# What a y axis shows, and of which measure.
OVERLAP = {"mean channel overlap (Jaccard)": attrgetter("overlap")}
CHANNEL_DEGREE = {"NNK degree of a channel\n(neighbours an image)": attrgetter("channel_degree")}
DEGREE = {"NNK degree of the layer\n(neighbours an image)": attrgetter("degree")}
DIMENSION = {"dimension of the layer\n(maximum likelihood)": attrgetter("mle_dimension")}


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


def panels_by_depth(
    measures: Mapping[str, Measure],
    layers: Sequence[str],
    draw: Callable[[Axes, Measure], None],
    *,
    size: tuple[float, float],
) -> Figure:
    """A panel for each measure against depth, two in a row, and one legend of their lines.

    Args:
        measures: label of the y axis to measure.
        layers: names of all layers, from the input on.
        draw: draws a measure's lines, at 0, 1, ... for the layers.
        size: (width, height) in inches.
    """
    with panels(len(measures) // 2, 2, size, sharex=True) as (figure, axes):
        for axis, (label, measure) in zip(axes.flat, measures.items(), strict=True):
            draw(axis, measure)
            axis.set_ylabel(label)
            axis.set_ylim(bottom=0)
        for axis in axes[-1]:
            label_layers(axis, layers, rotation=90)
        legend_above(figure, axes[0, 0], columns=4)
    return figure


def lines_of(layers: Sequence[str]) -> dict[str, np.ndarray]:
    """The layers to draw as lines, the first and the last among them, and their colours.

    Args:
        layers: names of all layers, from the input on.

    Returns:
        Name to colour (4,), light to dark: at most ``MOST_LINES``, evenly spaced in depth.
    """
    number = min(len(layers), MOST_LINES)
    places: list[int] = np.linspace(0, len(layers) - 1, number).round().astype(int).tolist()
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
