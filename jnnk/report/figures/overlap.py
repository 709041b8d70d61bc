"""Pictures of ``jnnk reproduce overlap`` from its records, and of overlap between networks."""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import NamedTuple, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.optimize import linear_sum_assignment

from jnnk.report.figures.style import (
    PALETTE,
    STYLE,
    Measure,
    label_epochs,
    legend_of_layers,
    line_with_limits,
    lines_of,
    make_axes,
    numbers,
    panels_by_depth,
)
from jnnk.runs.records import Interval, LayerMeasures
from jnnk.runs.study_records import NetworkEpoch, PairLayer, TrainedNetwork

Row = TypeVar("Row", NetworkEpoch, PairLayer)

_OVERLAP = "mean channel overlap (Jaccard)"
_MARKERS = "osD^vP*X"
_MEASURES: dict[str, Callable[[LayerMeasures], Interval]] = {
    _OVERLAP: attrgetter("overlap"),
    "redundancy\n(0 disjoint, 1 equal)": attrgetter("redundancy"),
    "NNK degree of a channel\n(neighbours an image)": attrgetter("channel_degree"),
    "dimension of the layer\n(maximum likelihood)": attrgetter("mle_dimension"),
}


def errors_by_epoch(records: Sequence[NetworkEpoch]) -> Figure:
    """Errors of a network and of label interpolation against the epoch, a panel a network.

    Args:
        records: a network and epoch each.
    """
    lines = (
        ("softmax, test", attrgetter("test_error"), PALETTE[0], "-"),
        ("weighted kNN, test", attrgetter("knn_error"), PALETTE[1], "-"),
        ("NNK, test", attrgetter("nnk_error"), PALETTE[2], "-"),
        ("NNK, leave-one-out on training images", attrgetter("loo_error"), PALETTE[2], "--"),
        ("softmax, training images", attrgetter("train_error"), PALETTE[0], "--"),
    )
    networks = _by_network(records)
    with mpl.rc_context(STYLE):
        figure, axes = make_axes(
            1, len(networks), (4.6 * len(networks), 4), sharey=True, squeeze=False
        )
        for axis, (network, rows) in zip(axes[0], networks.items(), strict=True):
            for label, error, colour, style in lines:
                axis.plot(
                    [row.epoch for row in rows],
                    100 * numbers([error(row.errors) for row in rows]),
                    style,
                    color=colour,
                    label=label,
                )
            axis.set_title(network)
            label_epochs(axis)
        axes[0, 0].set_ylabel("error (%)")
        axes[0, 0].set_ylim(bottom=0)
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def layers_by_epoch(records: Sequence[NetworkEpoch]) -> Figure:
    """Overlap, redundancy and dimension against the epoch, a line a layer, up to ``MOST_LINES``.

    Args:
        records: a network and epoch each; all networks have the same layers.
    """
    networks = _by_network(records)
    layers = [layer.layer for layer in records[0].errors.layers]
    with mpl.rc_context(STYLE):
        figure, axes = make_axes(
            len(_MEASURES), len(networks), (4.6 * len(networks), 10),
            sharex=True, sharey="row", squeeze=False,
        )  # fmt: skip
        for row, (label, measure) in zip(axes, _MEASURES.items(), strict=True):
            for axis, epochs in zip(row, networks.values(), strict=True):
                for layer, colour in lines_of(layers).items():
                    measured = [each.errors.layers[layers.index(layer)] for each in epochs]
                    values = numbers([measure(each.measures).mean for each in measured])
                    axis.plot([each.epoch for each in epochs], values, color=colour, label=layer)
            row[0].set_ylabel(label)
            row[0].set_ylim(bottom=0)
        for axis, network in zip(axes[0], networks, strict=True):
            axis.set_title(network)
        label_epochs(*axes[-1])
        legend_of_layers(figure, axes[0, 0], len(layers))
    return figure


def overlap_of_epochs(records: Sequence[NetworkEpoch]) -> Figure:
    """Test error and generalisation gap against the last layer's overlap, a point an epoch.

    Args:
        records: a network and epoch each.
    """
    points = [_Point(row.errors.overlap, row.epoch, row.network) for row in records]
    with mpl.rc_context(STYLE):
        figure, axes = make_axes(1, 2, (9.5, 4))
        for axis, heights, label in (
            (
                axes[0],
                [row.errors.test_error for row in records],
                "softmax error on test images (%)",
            ),
            (axes[1], [r.errors.gap for r in records], "test minus training error (points)"),
        ):
            drawn = _scatter(axis, points, heights)
            axis.set(xlabel=f"{_OVERLAP}, last layer", ylabel=label)
            axis.locator_params(axis="x", nbins=6)
            axis.legend(title="network")
        figure.colorbar(drawn, ax=axes, label="epoch", ticks=MaxNLocator(integer=True))
    return figure


def overlap_of_runs(records: Sequence[TrainedNetwork]) -> Figure:
    """Test accuracy and generalisation gap against the last layer's overlap, a point a run.

    Args:
        records: a run each.
    """
    points = [_Point(row.measures.overlap.mean, row.size, str(row.dropout)) for row in records]
    with mpl.rc_context(STYLE):
        figure, axes = make_axes(1, 2, (9.5, 4))
        for axis, heights, label in (
            (axes[0], [row.test_accuracy for row in records], "accuracy on test images (%)"),
            (axes[1], [row.gap for row in records], "training minus test accuracy (points)"),
        ):
            drawn = _scatter(axis, points, heights, log=True)
            axis.set(xlabel=f"{_OVERLAP}, last layer", ylabel=label)
            axis.xaxis.set_major_locator(MaxNLocator(5))
        axes[0].legend(title="dropout")
        bar = figure.colorbar(drawn, ax=axes, label="training images")
        sizes = sorted({row.size for row in records})
        bar.set_ticks(sizes, labels=[str(size) for size in sizes])
        bar.minorticks_off()
    return figure


def pair_by_depth(records: Sequence[PairLayer]) -> Figure:
    """Overlap, redundancy and dimension of networks layer by layer, with 95 % limits.

    Args:
        records: a network and layer each.
    """
    networks = _by_network(records)

    def draw(axis: Axes, measure: Measure) -> None:
        for (network, rows), colour in zip(networks.items(), PALETTE, strict=False):
            layers = [row.layer.layer for row in rows]
            points = [measure(row.layer.measures) for row in rows]
            line_with_limits(axis, layers, points, color=colour, label=network)

    layers = list(dict.fromkeys(record.layer.layer for record in records))
    return panels_by_depth(_MEASURES, layers, draw, size=(10, 7))


def cross_overlap_map(matrix: np.ndarray, *, names: tuple[str, str]) -> Figure:
    """Overlap between the channels of two layers or networks, best partners on the diagonal.

    Args:
        matrix: (C, C') from :func:`jnnk.measures.cross_overlap`, NaN for dead channels.
        names: of the first and the second.
    """
    is_live = [np.isfinite(matrix).any(axis) for axis in (1, 0)]
    live, dead = [np.flatnonzero(x) for x in is_live], [np.flatnonzero(~x) for x in is_live]
    of_live = matrix[np.ix_(*live)]
    pairs = np.stack(linear_sum_assignment(of_live, maximize=True))
    matched = of_live[tuple(pairs)]
    pairs = pairs[:, np.argsort(-matched)]  # the closest first, what has no partner next, then dead
    orders = [
        np.concatenate([channels[pair], np.delete(channels, pair), silent])
        for channels, pair, silent in zip(live, pairs, dead, strict=True)
    ]
    colours = mpl.colormaps["viridis"].with_extremes(bad="0.85")
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure, axis = make_axes(1, 1, (5.4, 4.6))
        shown = matrix[np.ix_(*orders)]
        image = axis.imshow(shown, cmap=colours, vmin=0, vmax=np.nanmax(shown, initial=0) or 1)
        figure.colorbar(image, ax=axis, label="overlap")
        if matched.size:
            axis.set_title(f"one-to-one partners overlap by {matched.mean():.3f}", fontsize=9)
        sides = [
            f"channels of {name}" + (f"; {len(silent)} dead, grey" if len(silent) else "")
            for name, silent in zip(names, dead, strict=True)
        ]
        axis.set(xticks=[], yticks=[], ylabel=sides[0], xlabel=sides[1])
    return figure


class _Point(NamedTuple):
    """A point of a scatter plot without its height.

    Attributes:
        overlap: along the x axis; None where undefined.
        shade: number that its colour tells.
        name: that its marker tells.
    """

    overlap: float | None
    shade: float
    name: str


def _scatter(
    axis: Axes, points: Sequence[_Point], heights: Sequence[float], *, log: bool = False
) -> PathCollection:
    """Draws points at their overlap and at their heights in percent."""
    shades = numbers([point.shade for point in points])
    scale = (mpl.colors.LogNorm if log else mpl.colors.Normalize)(shades.min(), shades.max())
    names = dict.fromkeys(point.name for point in points)
    for name, symbol in zip(names, _MARKERS, strict=False):
        chosen = np.array([point.name == name for point in points])
        drawn = axis.scatter(
            numbers([point.overlap for point in points])[chosen],
            100 * numbers(heights)[chosen],
            c=shades[chosen],
            norm=scale,
            marker=symbol,
            edgecolors="black",
            linewidths=0.4,
            label=name,
        )
    return drawn


def _by_network(records: Sequence[Row]) -> dict[str, list[Row]]:
    """The records of each network, in the order in which they appear."""
    networks: dict[str, list[Row]] = {}
    for record in records:
        networks.setdefault(record.network, []).append(record)
    return networks
