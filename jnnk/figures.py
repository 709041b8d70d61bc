"""The report's pictures, each a function from the content of ``results.json`` to a figure."""

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

# Petroff's ten colours, chosen to be told apart with any colour vision.
_PALETTE = mpl.color_sequences["petroff10"]
_STYLE = {
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 10,
    "figure.dpi": 120,
    "legend.frameon": False,
    "axes.prop_cycle": cycler(color=_PALETTE),
    "svg.hashsalt": "jnnk",  # the same figure gives the same file
}


def training_curves(metrics: list[dict]) -> Figure:
    """Loss and accuracy against the epoch.

    Args:
        metrics: the records of ``metrics.jsonl``.
    """
    with mpl.rc_context(_STYLE):
        figure, (left, right) = _axes(1, 2, (9, 3.2))
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
        ("dimension", "NNK degree of the layer\n(neighbours an image)", 1),
        ("loo_error", "leave-one-out error (%)", 100),
    ]
    epochs = sorted({record["epoch"] for record in records})
    colours = mpl.colormaps["viridis"](np.linspace(0.9, 0.1, len(epochs)))
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(2, 2, (9, 6.4), sharex=True)
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
            axis.tick_params(axis="x", labelrotation=60)
            axis.set_xlabel("layer")
        axes[0, 0].legend()
    return figure


def measures_by_epoch(records: list[dict]) -> Figure:
    """Mean channel overlap of every layer against the epoch.

    Args:
        records: of :func:`jnnk.jobs.overlap.overlap`.
    """
    layers = list(dict.fromkeys(record["layer"] for record in records))
    colours = mpl.colormaps["viridis"](np.linspace(0.9, 0.1, len(layers)))
    with mpl.rc_context(_STYLE):
        figure, axis = _axes(1, 1, (7, 3.6))
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
    with mpl.rc_context({**_STYLE, "axes.grid": False}):
        figure, axes = _axes(rows, columns, (3.2 * columns, 3.1 * rows), squeeze=False)
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


def pruning_sweep(sweep: dict, *, criterion: str, share: float, tolerance: float) -> Figure:
    """Accuracy against the share of conv kernels pruned, a line a criterion, no fine-tuning.

    Args:
        sweep: the ``sweep`` of :func:`jnnk.jobs.prune.prune`.
        criterion: the one the network is pruned by, drawn thick.
        share: the share it is pruned at.
        tolerance: accuracy that may be lost, in percentage points.
    """
    with mpl.rc_context(_STYLE):
        figure, axis = _axes(1, 1, (7.5, 4))
        for index, (name, points) in enumerate(sweep["criteria"].items()):
            axis.plot(
                [100 * point["share"] for point in points],
                [100 * point["accuracy"] for point in points],
                color=_PALETTE[index % len(_PALETTE)],
                linestyle=":" if name == "random" else "-",
                linewidth=2.5 if name == criterion else 1.2,
                label=name,
            )
        floor = 100 * sweep["accuracy"] - tolerance
        axis.axhline(floor, color="grey", linewidth=0.8, linestyle="--")
        axis.axvline(100 * share, color="grey", linewidth=0.8, linestyle="--")
        axis.set(xlabel="conv kernels pruned (%)", ylabel="test accuracy (%)")
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def kernel_score_ranges(scores: list[dict], *, criterion: str) -> Figure:
    """Range and quartiles of one criterion's score in every layer.

    Args:
        scores: of :func:`jnnk.jobs.prune.score_quantiles`.
        criterion: the one shown.
    """
    rows = [record for record in scores if record["criterion"] == criterion]
    boxes = [
        dict(zip(("whislo", "q1", "med", "q3", "whishi"), record["quantiles"], strict=True))
        for record in rows
    ]
    with mpl.rc_context(_STYLE):
        figure, axis = _axes(1, 1, (7.5, 3.6))
        axis.bxp(boxes, showfliers=False)
        axis.set_xticklabels([record["layer"] for record in rows], rotation=60, ha="right")
        axis.set(xlabel="layer", ylabel=f"{criterion} of a kernel")
        axis.set_ylim(bottom=0)
    return figure


def pruned_by_layer(layers: list[dict]) -> Figure:
    """Share of kernels pruned in every layer.

    Args:
        layers: of :class:`jnnk.mask_summary.MaskSummary`, as JSON has them.
    """
    with mpl.rc_context(_STYLE):
        figure, axis = _axes(1, 1, (7.5, 3.2))
        names = [record["path"].removesuffix("/kernel") for record in layers]
        counts = [record["kernels"] for record in layers]
        axis.bar(names, [100 * (1 - kept / whole) for whole, kept in counts])
        axis.tick_params(axis="x", labelrotation=60)
        axis.set(xlabel="layer", ylabel="kernels pruned (%)", ylim=(0, 100))
    return figure


def _axes(rows: int, columns: int, size: tuple[float, float], **options) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def _number(value: float | None) -> float:
    return np.nan if value is None else value
