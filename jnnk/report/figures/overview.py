"""The report's pictures, each a function from the content of ``results.json`` to a figure."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from jnnk.measures import cluster_channels, tree_lines
from jnnk.report.figures.layers import (
    CHANNEL_DEGREE,
    DEGREE,
    DIMENSION,
    OVERLAP,
    Measure,
    by_layer,
    label_layers,
    legend_of_layers,
    lines_of,
    panels_by_depth,
)
from jnnk.report.figures.style import (
    PALETTE,
    label_epochs,
    line_with_limits,
    numbers,
    overlap_map,
    panel_each,
    panels,
    shades,
)
from jnnk.runs.records import EpochMetrics, LayerRecord

_REDUNDANCY = {"redundancy (0 disjoint, 1 equal)": attrgetter("redundancy")}
_BY_EPOCH: dict[str, Measure] = {**OVERLAP, **_REDUNDANCY, **DEGREE, **DIMENSION}
_BY_DEPTH: dict[str, Measure] = {
    **OVERLAP, **_REDUNDANCY, **CHANNEL_DEGREE, **DEGREE, **DIMENSION,
    "leave-one-out error (%)": lambda measures: 100 * measures.loo_error,
}  # fmt: skip


def training_curves(metrics: Sequence[EpochMetrics]) -> Figure:
    """Loss and accuracy against the epoch.

    Args:
        metrics: an epoch each.
    """
    with panels(1, 2, (9, 3.2)) as (figure, axes):
        left, right = axes[0]
        epochs = [line.epoch for line in metrics]
        left.plot(epochs, [line.cross_entropy for line in metrics], label="cross-entropy")
        left.plot(epochs, [line.loss for line in metrics], "--", label="with penalties")
        left.set_ylabel("training loss (nats)")
        left.legend()
        right.plot(epochs, [100 * line.accuracy for line in metrics], label="training batches")
        right.plot(epochs, [100 * line.test_accuracy for line in metrics], label="test images")
        right.set_ylabel("accuracy (%)")
        label_epochs(left, right)
        right.legend()
    return figure


@dataclass(frozen=True)
class LayerOverview:
    """How redundant a layer is, and what pruning left of it.

    Attributes:
        layer: its name.
        redundancy: of its channels, None where undefined.
        kernels: their number; None where the layer has none or nothing was pruned.
        kernels_kept: those that the mask keeps, likewise.
    """

    layer: str
    redundancy: float | None
    kernels: int | None
    kernels_kept: int | None


def redundancy_and_pruning(rows: Sequence[LayerOverview]) -> Figure:
    """Redundancy of every layer, and below it the share of its kernels that were pruned.

    Args:
        rows: the layers, from the input on.
    """
    layers = [row.layer for row in rows]
    bars = {"redundancy\n(0 disjoint, 1 equal)": numbers([row.redundancy for row in rows])}
    if any(row.kernels for row in rows):
        kept = numbers([row.kernels_kept for row in rows]) / numbers([row.kernels for row in rows])
        bars["kernels pruned (%)"] = 100 * (1 - kept)
    size = by_layer(len(layers), 1.0 + 1.6 * len(bars), least=7)
    with panels(len(bars), 1, size, sharex=True) as (figure, axes):
        for axis, (label, values), colour in zip(axes.flat, bars.items(), PALETTE, strict=False):
            axis.bar(range(len(layers)), np.nan_to_num(values), color=colour)
            axis.set_ylabel(label)
            axis.grid(axis="x", visible=False)
        axes[0, 0].set_ylim(0, 1)
        label_layers(axes[-1, 0], layers, rotation=45)
    return figure


def measures_by_depth(records: Sequence[LayerRecord], *, control: int | str = 0) -> Figure:
    """Overlap, redundancy, dimensions and leave-one-out error against depth, a line per epoch.

    Args:
        records: of every epoch and layer.
        control: the epoch at which the network had random weights, drawn as a line of its own
            kind; where it is another than 0, training started from given weights.
    """
    epochs = dict.fromkeys(record.epoch for record in records)
    layers = list(dict.fromkeys(record.layer for record in records))
    trained = [epoch for epoch in epochs if epoch != control]
    colours = shades(len(trained))
    styles = {
        epoch: {"color": colour, "label": f"epoch {epoch}" if epoch else "given weights"}
        for epoch, colour in zip(trained, colours, strict=True)
    }
    styles[control] = {
        "color": "0.4",
        "marker": "s",
        "linestyle": "--",
        "label": "random weights (control)",
    }

    def draw(axis: Axes, measure: Measure) -> None:
        for epoch in epochs:
            rows = [record for record in records if record.epoch == epoch]
            points = [measure(row.measures) for row in rows]
            line_with_limits(axis, [row.layer for row in rows], points, **styles[epoch])

    return panels_by_depth(_BY_DEPTH, layers, draw, size=(10, 9))


def measures_by_epoch(records: Sequence[LayerRecord]) -> Figure:
    """Overlap, redundancy and dimensions against the epoch, a line per layer, up to ``MOST_LINES``.

    Args:
        records: of every layer and of epochs that are numbers.
    """
    layers = list(dict.fromkeys(record.layer for record in records))
    with panels(2, 2, (10, 6.4), sharex=True) as (figure, axes):
        for axis, (label, measure) in zip(axes.flat, _BY_EPOCH.items(), strict=True):
            for layer, colour in lines_of(layers).items():
                rows = [record for record in records if record.layer == layer]
                points = [measure(row.measures) for row in rows]
                line_with_limits(
                    axis, [row.epoch for row in rows], points, color=colour, label=layer
                )
            axis.set_ylabel(label)
            axis.set_ylim(bottom=0)
        label_epochs(*axes[-1])
        legend_of_layers(figure, axes[0, 0], len(layers))
    return figure


def overlap_heat_maps(matrices: dict[str, np.ndarray]) -> Figure:
    """Channel overlap of several layers, channels in the order of the dendrogram beside it.

    Args:
        matrices: layer name to (C, C) overlap; NaN rows and columns are dead channels.
    """
    with panel_each(len(matrices), 3, (4.4, 3.6)) as (figure, axes):
        for axis, (layer, matrix) in zip(axes, matrices.items(), strict=True):
            image = _heat_map(axis, layer, matrix)
            figure.colorbar(image, ax=axis, shrink=0.8, label="Jaccard")
    return figure


def _heat_map(axis: Axes, layer: str, matrix: np.ndarray) -> AxesImage:
    """The overlap of live channels in clustered order, dead ones after them in grey."""
    tree = cluster_channels(matrix)
    order = np.concatenate([tree.live, tree.dead])
    shown = matrix[np.ix_(order, order)]
    np.fill_diagonal(shown, np.nan)  # a channel's overlap with itself says nothing
    image = overlap_map(axis, shown, interpolation="nearest")
    axis.set_title(layer, fontsize=9)
    axis.set_xlabel("channels" + _dead_names(tree.dead), fontsize=8)
    if tree.linkage is not None:
        beside = axis.inset_axes((-0.32, 0, 0.3, 1), sharey=axis)
        _draw_tree(beside, tree_lines(tree), 1 - tree.linkage[:, 2])
    return image


def _draw_tree(axis: Axes, lines: np.ndarray, merged: np.ndarray) -> None:
    """The dendrogram, from the overlap at which its last groups merge to that of its first pair.

    Args:
        axis: to draw on.
        lines: of :func:`jnnk.measures.tree_lines`.
        merged: (L - 1,) overlap at which groups merge.
    """
    lines[..., 0] = 1 - lines[..., 0]  # the leaves stand at 1, beyond the panel
    axis.add_collection(LineCollection(list(lines), colors="0.3", linewidths=0.8))
    low, high = merged.min(), merged.max()
    space = 0.1 * (high - low) or 0.05
    axis.set(xlim=(low - space, high + space), xlabel="overlap of\nmerged groups")
    axis.set_xticks((low, high), [f"{low:.2g}", f"{high:.2g}"])
    axis.tick_params(labelsize=7)
    axis.xaxis.label.set_fontsize(8)
    axis.spines[["left", "right", "top"]].set_visible(False)


def _dead_names(dead: np.ndarray) -> str:
    """Names the dead channels, as many as there is room for."""
    if not len(dead):
        return ""
    names = textwrap.shorten(", ".join(map(str, dead)), 36, placeholder=" ...")
    return f"; {len(dead)} dead at the end, grey:\n{names}"
