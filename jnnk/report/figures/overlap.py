"""Pictures of ``jnnk reproduce overlap`` from its records, and of overlap between networks."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple, TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.optimize import linear_sum_assignment

from jnnk.report.figures.layers import (
    CHANNEL_DEGREE,
    DIMENSION,
    OVERLAP,
    Measure,
    legend_of_layers,
    lines_of,
    panels_by_depth,
)
from jnnk.report.figures.style import (
    PALETTE,
    label_epochs,
    legend_above,
    line_with_limits,
    numbers,
    overlap_map,
    panel,
    panels,
)
from jnnk.runs.records import Interval, LayerMeasures
from jnnk.runs.study_records import NetworkEpoch, PairLayer, TrainedNetwork

Row = TypeVar("Row", NetworkEpoch, PairLayer)

_MARKERS = "osD^vP*X"
_MEASURES: dict[str, Callable[[LayerMeasures], Interval]] = {
    **OVERLAP,
    "redundancy\n(0 disjoint, 1 equal)": attrgetter("redundancy"),
    **CHANNEL_DEGREE,
    **DIMENSION,
}


def errors_by_epoch(records: Sequence[NetworkEpoch]) -> Figure:
    """Errors of a network and of label interpolation against the epoch, a panel per network.

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
    with panels(1, len(networks), (4.6 * len(networks), 4), sharey=True) as (figure, axes):
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
        legend_above(figure, axes[0, 0], columns=3)
    return figure


def layers_by_epoch(records: Sequence[NetworkEpoch]) -> Figure:
    """Overlap, redundancy and dimension against the epoch, a line per layer, up to ``MOST_LINES``.

    Args:
        records: a network and epoch each; all networks have the same layers.
    """
    networks = _by_network(records)
    layers = [layer.layer for layer in records[0].errors.layers]
    size = (4.6 * len(networks), 10)
    with panels(len(_MEASURES), len(networks), size, sharex=True, sharey="row") as (figure, axes):
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
    """Test error and generalisation gap against the last layer's overlap, a point per epoch.

    Args:
        records: a network and epoch each.
    """
    points = [_Point(row.errors.overlap, row.epoch, row.network) for row in records]
    heights = {
        "softmax error on test images (%)": [row.errors.test_error for row in records],
        "test minus training error (points)": [row.errors.gap for row in records],
    }
    with panels(1, 2, (9.5, 4)) as (figure, axes):
        drawn = _against_overlap(axes[0], points, heights, Normalize)
        for axis in axes[0]:
            axis.locator_params(axis="x", nbins=6)
            axis.legend(title="network")
        figure.colorbar(drawn, ax=axes, label="epoch", ticks=MaxNLocator(integer=True))
    return figure


def overlap_of_runs(records: Sequence[TrainedNetwork]) -> Figure:
    """Test accuracy and generalisation gap against the last layer's overlap, a point per run.

    Args:
        records: a run each.
    """
    points = [_Point(row.measures.overlap.mean, row.size, str(row.dropout)) for row in records]
    heights = {
        "accuracy on test images (%)": [row.test_accuracy for row in records],
        "training minus test accuracy (points)": [row.gap for row in records],
    }
    with panels(1, 2, (9.5, 4)) as (figure, axes):
        drawn = _against_overlap(axes[0], points, heights, LogNorm)
        for axis in axes[0]:
            axis.xaxis.set_major_locator(MaxNLocator(5))
        axes[0, 0].legend(title="dropout")
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
    with panel((5.4, 4.6), grid=False) as (figure, axis):
        image = overlap_map(axis, matrix[np.ix_(*orders)])
        figure.colorbar(image, ax=axis, label="overlap")
        if matched.size:
            axis.set_title(f"one-to-one partners overlap by {matched.mean():.3f}", fontsize=9)
        sides = [
            f"channels of {name}" + (f"; {len(silent)} dead, grey" if len(silent) else "")
            for name, silent in zip(names, dead, strict=True)
        ]
        axis.set(ylabel=sides[0], xlabel=sides[1])
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


def _against_overlap(
    axes: Iterable[Axes],
    points: Sequence[_Point],
    heights: Mapping[str, Sequence[float]],
    scale: type[Normalize],
) -> PathCollection:
    """Draws points at their overlap and at their heights in percent, a panel a kind of height.

    Args:
        axes: of the panels.
        points: without their heights.
        heights: label of the y axis to a height each.
        scale: of the shades.

    Returns:
        The points drawn last, whose colours are those of all.
    """
    overlaps = numbers([point.overlap for point in points])
    shades = numbers([point.shade for point in points])
    names = dict.fromkeys(point.name for point in points)
    drawn = None
    for axis, (label, values) in zip(axes, heights.items(), strict=True):
        norm = scale(shades.min(), shades.max())
        for name, symbol in zip(names, _MARKERS, strict=False):
            chosen = np.array([point.name == name for point in points])
            drawn = axis.scatter(
                overlaps[chosen],
                100 * numbers(values)[chosen],
                c=shades[chosen],
                norm=norm,
                marker=symbol,
                edgecolors="black",
                linewidths=0.4,
                label=name,
            )
        axis.set(xlabel="mean channel overlap (Jaccard), last layer", ylabel=label)
    assert drawn is not None, "no points"
    return drawn


def _by_network(records: Sequence[Row]) -> dict[str, list[Row]]:
    """The records of each network, in the order in which they appear."""
    networks: dict[str, list[Row]] = {}
    for record in records:
        networks.setdefault(record.network, []).append(record)
    return networks
