"""Pictures of ``jnnk reproduce overlap`` from its records, and of overlap between networks."""

from operator import attrgetter

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.optimize import linear_sum_assignment

from jnnk.files.schema import conform
from jnnk.report.figures.style import (
    PALETTE,
    STYLE,
    Measure,
    label_epochs,
    legend_of_layers,
    line_with_limits,
    lines_of,
    make_axes,
    panels_by_depth,
    values_of,
)
from jnnk.runs.records import LayerMeasures

_OVERLAP = "mean channel overlap (Jaccard)"
_MARKERS = "osD^vP*X"
_MEASURES = {
    "overlap": _OVERLAP,
    "redundancy": "redundancy\n(0 disjoint, 1 equal)",
    "channel_degree": "NNK degree of a channel\n(neighbours an image)",
    "mle_dimension": "dimension of the layer\n(maximum likelihood)",
}


def errors_by_epoch(records: list[dict]) -> Figure:
    """Errors of a network and of label interpolation against the epoch, a panel a network.

    Args:
        records: of :func:`jnnk.experiments.overlap_epochs.measure_epochs`.
    """
    lines = {
        "test_error": ("softmax, test", PALETTE[0], "-"),
        "knn_error": ("weighted kNN, test", PALETTE[1], "-"),
        "nnk_error": ("NNK, test", PALETTE[2], "-"),
        "loo_error": ("NNK, leave-one-out on training images", PALETTE[2], "--"),
        "train_error": ("softmax, training images", PALETTE[0], "--"),
    }
    networks = _names(records, "network")
    with mpl.rc_context(STYLE):
        figure, axes = make_axes(
            1, len(networks), (4.6 * len(networks), 4), sharey=True, squeeze=False
        )
        for axis, network in zip(axes[0], networks, strict=True):
            rows = [record for record in records if record["network"] == network]
            for field, (label, colour, style) in lines.items():
                axis.plot(
                    values_of(rows, "epoch"),
                    100 * values_of(rows, field),
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


def layers_by_epoch(records: list[dict]) -> Figure:
    """Overlap, redundancy and dimension against the epoch, a line a layer, up to ``MOST_LINES``.

    Args:
        records: of :func:`jnnk.experiments.overlap_epochs.measure_epochs`.
    """
    networks = _names(records, "network")
    layers = [layer["layer"] for layer in records[0]["layers"]]
    with mpl.rc_context(STYLE):
        figure, axes = make_axes(
            len(_MEASURES), len(networks), (4.6 * len(networks), 10),
            sharex=True, sharey="row", squeeze=False,
        )  # fmt: skip
        for row, (field, label) in zip(axes, _MEASURES.items(), strict=True):
            for axis, network in zip(row, networks, strict=True):
                rows = [record for record in records if record["network"] == network]
                for layer, colour in lines_of(layers).items():
                    depth = layers.index(layer)
                    values = values_of([record["layers"][depth] for record in rows], field)
                    axis.plot(values_of(rows, "epoch"), values, color=colour, label=layer)
            row[0].set_ylabel(label)
            row[0].set_ylim(bottom=0)
        for axis, network in zip(axes[0], networks, strict=True):
            axis.set_title(network)
        label_epochs(*axes[-1])
        legend_of_layers(figure, axes[0, 0], len(layers))
    return figure


def overlap_of_epochs(records: list[dict]) -> Figure:
    """Test error and generalisation gap against the last layer's overlap, a point an epoch.

    Args:
        records: of :func:`jnnk.experiments.overlap_epochs.measure_epochs`.
    """
    with mpl.rc_context(STYLE):
        figure, axes = make_axes(1, 2, (9.5, 4))
        for axis, field, label in (
            (axes[0], "test_error", "softmax error on test images (%)"),
            (axes[1], "gap", "test minus training error (points)"),
        ):
            points = _scatter(axis, records, field, colour="epoch", marker="network")
            axis.set(xlabel=f"{_OVERLAP}, last layer", ylabel=label)
            axis.locator_params(axis="x", nbins=6)
            axis.legend(title="network")
        figure.colorbar(points, ax=axes, label="epoch", ticks=MaxNLocator(integer=True))
    return figure


def overlap_of_runs(records: list[dict]) -> Figure:
    """Test accuracy and generalisation gap against the last layer's overlap, a point a run.

    Args:
        records: of :func:`jnnk.experiments.overlap_runs.measure_runs`.
    """
    with mpl.rc_context(STYLE):
        figure, axes = make_axes(1, 2, (9.5, 4))
        for axis, field, label in (
            (axes[0], "test_accuracy", "accuracy on test images (%)"),
            (axes[1], "gap", "training minus test accuracy (points)"),
        ):
            points = _scatter(axis, records, field, colour="size", marker="dropout", log=True)
            axis.set(xlabel=f"{_OVERLAP}, last layer", ylabel=label)
        axes[0].legend(title="dropout")
        bar = figure.colorbar(points, ax=axes, label="training images")
        sizes = sorted({record["size"] for record in records})
        bar.set_ticks(sizes, labels=[str(size) for size in sizes])
        bar.minorticks_off()
    return figure


def pair_by_depth(records: list[dict]) -> Figure:
    """Overlap, redundancy and dimension of networks layer by layer, with 95 % limits.

    Args:
        records: of :func:`jnnk.experiments.overlap_pair.measure_pair`.
    """

    def draw(axis: Axes, measure: Measure) -> None:
        for network, colour in zip(_names(records, "network"), PALETTE, strict=False):
            rows = [record for record in records if record["network"] == network]
            points = [measure(conform(row, LayerMeasures)) for row in rows]
            line_with_limits(
                axis, [row["layer"] for row in rows], points, color=colour, label=network
            )

    panels = {label: attrgetter(field) for field, label in _MEASURES.items()}
    return panels_by_depth(panels, _names(records, "layer"), draw, size=(10, 7))


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


def _scatter(
    axis: Axes, records: list[dict], field: str, *, colour: str, marker: str, log: bool = False
):
    """Points of ``field`` (in percent) against overlap, coloured and marked by other fields."""
    values = values_of(records, colour)
    scale = (mpl.colors.LogNorm if log else mpl.colors.Normalize)(values.min(), values.max())
    for name, symbol in zip(_names(records, marker), _MARKERS, strict=False):
        rows = [record for record in records if record[marker] == name]
        points = axis.scatter(
            values_of(rows, "overlap"),
            100 * values_of(rows, field),
            c=values_of(rows, colour),
            norm=scale,
            marker=symbol,
            edgecolors="black",
            linewidths=0.4,
            label=str(name),
        )
    return points


def _names(records: list[dict], field: str) -> list:
    return list(dict.fromkeys(record[field] for record in records))
