"""The report's pictures, each a function from the content of ``results.json`` to a figure."""

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from jnnk.figure_style import STYLE, make_axes


def training_curves(metrics: list[dict]) -> Figure:
    """Loss and accuracy against the epoch.

    Args:
        metrics: the records of ``metrics.jsonl``.
    """
    with mpl.rc_context(STYLE):
        figure, (left, right) = make_axes(1, 2, (9, 3.2))
        epochs = [record["epoch"] for record in metrics]
        left.plot(epochs, [record["cross_entropy"] for record in metrics], label="cross-entropy")
        left.plot(epochs, [record["loss"] for record in metrics], "--", label="with penalties")
        left.set(xlabel="epoch", ylabel="training loss (nats)")
        left.legend()
        right.plot(
            epochs, [100 * record["accuracy"] for record in metrics], label="training batches"
        )
        right.plot(
            epochs, [100 * record["test_accuracy"] for record in metrics], label="test images"
        )
        right.set(xlabel="epoch", ylabel="accuracy (%)")
        right.legend()
    return figure


def measures_by_depth(records: list[dict]) -> Figure:
    """Overlap, redundancy, dimension and leave-one-out error against depth, a line an epoch.

    Args:
        records: of :func:`jnnk.jobs.overlap.overlap`.
    """
    panels = [
        ("overlap", "mean channel overlap (Jaccard)", 1),
        ("redundancy", "redundancy (0 disjoint, 1 equal)", 1),
        ("degree", "NNK degree of the layer\n(neighbours an image)", 1),
        ("loo_error", "leave-one-out error (%)", 100),
    ]
    epochs = sorted({record["epoch"] for record in records})
    colours = mpl.colormaps["viridis"](np.linspace(0.9, 0.1, len(epochs)))
    with mpl.rc_context(STYLE):
        figure, axes = make_axes(2, 2, (9, 6.4), sharex=True)
        for axis, (field, label, factor) in zip(axes.flat, panels, strict=True):
            for epoch, colour in zip(epochs, colours, strict=True):
                rows = [record for record in records if record["epoch"] == epoch]
                axis.plot(
                    [record["layer"] for record in rows],
                    [_number(record[field]) * factor for record in rows],
                    "o-",
                    markersize=4,
                    color=colour,
                    label=f"epoch {epoch}" + (" (random start)" if epoch == 0 else ""),
                )
            axis.set_ylabel(label)
            axis.set_ylim(bottom=0)
        for axis in axes[-1]:
            axis.tick_params(axis="x", labelrotation=90)
            axis.set_xlabel("layer")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def measures_by_epoch(records: list[dict]) -> Figure:
    """Mean channel overlap of every layer against the epoch.

    Args:
        records: of :func:`jnnk.jobs.overlap.overlap`.
    """
    layers = list(dict.fromkeys(record["layer"] for record in records))
    colours = mpl.colormaps["viridis"](np.linspace(0.9, 0.1, len(layers)))
    with mpl.rc_context(STYLE):
        figure, axis = make_axes(1, 1, (7, 3.6))
        for layer, colour in zip(layers, colours, strict=True):
            rows = [record for record in records if record["layer"] == layer]
            axis.plot(
                [record["epoch"] for record in rows],
                [_number(record["overlap"]) for record in rows],
                "o-",
                markersize=4,
                color=colour,
                label=layer,
            )
        axis.set(xlabel="epoch", ylabel="mean channel overlap (Jaccard)")
        axis.set_ylim(bottom=0)
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def overlap_heat_maps(matrices: dict[str, np.ndarray]) -> Figure:
    """Channel overlap of several layers, channels ordered so that like ones stand together.

    Args:
        matrices: layer name to (C, C) overlap; NaN rows and columns are dead channels.
    """
    columns = min(len(matrices), 3)
    rows = -(-len(matrices) // columns)
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure, axes = make_axes(rows, columns, (3.2 * columns, 3.1 * rows), squeeze=False)
        for axis, (layer, matrix) in zip(axes.flat, matrices.items(), strict=False):
            order = cluster_order(matrix)
            shown = matrix[np.ix_(order, order)].copy()
            np.fill_diagonal(shown, np.nan)  # a channel's overlap with itself says nothing
            image = axis.imshow(shown, cmap="viridis", vmin=0, interpolation="nearest")
            dead = len(matrix) - len(order)
            note = f", {dead} dead left out" if dead else ""
            axis.set_title(f"{layer}{note}", fontsize=9)
            axis.set(xticks=[], yticks=[], xlabel="channel", ylabel="channel")
            figure.colorbar(image, ax=axis, shrink=0.8, label="Jaccard")
        for axis in axes.flat[len(matrices) :]:
            axis.remove()
    return figure


def cluster_order(matrix: np.ndarray) -> np.ndarray:
    """Live channels in the order of average-linkage clustering on 1 - overlap.

    Args:
        matrix: (C, C) overlap, NaN rows and columns for dead channels.

    Returns:
        Indices of the live channels.
    """
    live = np.flatnonzero(np.isfinite(np.diagonal(matrix)))
    if len(live) < 3:
        return live
    distance = 1 - np.nan_to_num(matrix[np.ix_(live, live)])
    distance = (distance + distance.T) / 2
    np.fill_diagonal(distance, 0)
    return live[leaves_list(linkage(squareform(distance, checks=False), "average"))]


def _number(value: float | None) -> float:
    return np.nan if value is None else value
