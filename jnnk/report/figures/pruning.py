"""Pictures of pruning, each a function from records of ``prune/result.json`` to a figure."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jnnk.pruning import EigenvalueKinds, Intersection
from jnnk.report.figures.layers import MOST_NAMES, by_layer, label_layers
from jnnk.report.figures.style import (
    PALETTE,
    LineStyle,
    label_epochs,
    legend_beside,
    line_style,
    means_and_deviations,
    panel,
    panel_each,
    panels,
)
from jnnk.runs.records import (
    BelowThresholds,
    KernelHistory,
    PrunedLayer,
    ScoreQuantiles,
    Spread,
    Sweep,
    TrialSummary,
)
from jnnk.runs.study_records import PruningCase


def pruning_sweep(sweep: Sweep, *, criterion: str, share: float, tolerance: float) -> Figure:
    """Accuracy and the paper's score against the share of conv kernels pruned, no fine-tuning.

    Args:
        sweep: accuracy by criterion and share.
        criterion: the one the network is pruned by, drawn thick.
        share: the share it is pruned at.
        tolerance: accuracy that may be lost, in percentage points.
    """
    with panels(1, 2, (10, 4)) as (figure, axes):
        left, right = axes[0]
        for index, (name, points) in enumerate(sweep.criteria.items()):
            shares = [100 * point.share for point in points]
            style = {**_line(index, name), "linewidth": 2.5 if name == criterion else 1.2}
            left.plot(shares, [100 * point.accuracy for point in points], **style)
            right.plot(shares, [point.score for point in points], **style)
        for axis in (left, right):
            axis.axvline(100 * share, color="grey", linewidth=0.8, linestyle="--")
            axis.set_xlabel("conv kernels pruned (%)")
        left.axhline(100 * sweep.accuracy - tolerance, color="grey", linewidth=0.8, linestyle="--")
        left.set_ylabel("test accuracy (%)")
        right.set_ylabel("(acc/acc₀) (1 - params/params₀)")
        legend_beside(right)
    return figure


def kernel_score_ranges(scores: Sequence[ScoreQuantiles], *, criterion: str) -> Figure:
    """Range and quartiles of one criterion's score in every layer.

    Args:
        scores: of all criteria and layers.
        criterion: the one shown.
    """
    rows = [row for row in scores if row.criterion == criterion]
    boxes: list[dict[str, Any]] = [
        dict(zip(("whislo", "q1", "med", "q3", "whishi"), row.quantiles, strict=True))
        for row in rows
    ]
    with panel(by_layer(len(rows), 3.6)) as (figure, axis):
        axis.bxp(
            boxes, positions=range(len(rows)), showfliers=False, showcaps=len(rows) <= MOST_NAMES
        )
        label_layers(axis, [row.layer for row in rows])
        axis.set_ylabel(f"{criterion} of a kernel")
        axis.set_ylim(bottom=0)
    return figure


def eigenvalue_kinds(rows: Sequence[EigenvalueKinds], *, chance: float | None) -> Figure:
    """Share of kernels with real eigenvalues only, by layer, before and after pruning.

    Args:
        rows: a layer each.
        chance: that share among random kernels, drawn as a line; None where kernels differ in size.
    """
    with panel(by_layer(len(rows), 3.6)) as (figure, axis):
        at = np.arange(len(rows))
        before = [row.real / row.kernels for row in rows]
        after = [row.kept_real / row.kept if row.kept else np.nan for row in rows]
        for shift, shares, label in ((-0.2, before, "all kernels"), (0.2, after, "kernels kept")):
            axis.bar(at + shift, 100 * np.array(shares), 0.4, label=label)
        if chance is not None:
            axis.axhline(100 * chance, color="grey", linestyle="--", label="random kernels")
        label_layers(axis, [row.layer for row in rows])
        axis.set_ylabel("kernels with real\neigenvalues only (%)")
        legend_beside(axis)
    return figure


def pruned_by_threshold(thresholds: Sequence[float], shares: Mapping[str, np.ndarray]) -> Figure:
    """Share of all kernels below a significance threshold, a line per criterion.

    Args:
        thresholds: in the unit of the weights, ascending.
        shares: criterion to shares (T,) of the network's kernels.
    """
    with panel((7.5, 4)) as (figure, axis):
        for index, (criterion, below) in enumerate(shares.items()):
            axis.plot(thresholds, 100 * below, **_line(index, criterion))
        axis.set(xscale="log", xlabel="threshold t: det is compared with tⁿ, det_gram t²ⁿ")
        axis.set(ylabel="conv kernels below it (%)", ylim=(0, 100))
        legend_beside(axis)
    return figure


def pruned_by_threshold_and_layer(
    thresholds: Sequence[float], rows: Sequence[BelowThresholds]
) -> Figure:
    """Share of a layer's kernels below a significance threshold, a panel per criterion.

    Args:
        thresholds: in the unit of the weights, ascending, evenly spaced in their logarithm.
        rows: of every criterion and layer; those of the whole network are not shown.
    """
    rows = [row for row in rows if row.layer is not None]
    criteria = list(dict.fromkeys(row.criterion for row in rows))
    options = {"sharex": True, "sharey": True}
    with panel_each(len(criteria), 4, (2.6, 2.6), **options) as (figure, axes):
        for axis, criterion in zip(axes, criteria, strict=True):
            shares = [row.shares for row in rows if row.criterion == criterion]
            axis.pcolormesh(
                thresholds, range(len(shares)), 100 * np.array(shares), vmin=0, vmax=100,
                cmap="viridis", shading="nearest", rasterized=True,
            )  # fmt: skip
            axis.set(xscale="log", title=criterion)
        axes[0].invert_yaxis()
        figure.supxlabel("threshold")
        figure.supylabel("layer, from the input on")
        figure.colorbar(axes[-1].collections[0], ax=axes, label="kernels below it (%)")
    return figure


def pruned_by_layer(rows: Sequence[PrunedLayer], *, criteria: Sequence[str]) -> Figure:
    """Share of kernels every criterion prunes in every layer, all at one share of the network.

    Args:
        rows: a layer each.
        criteria: names of all criteria compared.
    """
    shares = np.array([[100 * row.shares[name] for row in rows] for name in criteria])
    with panel(by_layer(len(rows), 3.8), grid=False) as (figure, axis):
        image = axis.imshow(shares, cmap="viridis", vmin=0, vmax=100, aspect="auto")
        label_layers(axis, [row.layer for row in rows])
        axis.set_yticks(range(len(criteria)), criteria)
        figure.colorbar(image, ax=axis, label="kernels pruned (%)")
    return figure


def agreement(
    intersections: Sequence[Intersection], *, criteria: Sequence[str], most: int = 20
) -> Figure:
    """Kernels pruned by exactly the criteria marked below each bar (an UpSet chart).

    Args:
        intersections: largest first.
        criteria: names of all criteria compared.
        most: number of bars; the rest is summed up in the title.
    """
    shown, rest = intersections[:most], intersections[most:]
    at = np.arange(len(shown))
    options = {"sharex": True, "height_ratios": (2, 0.25 * len(criteria))}
    with panels(2, 1, (8, 5), grid=False, **options) as (figure, axes):
        top, bottom = axes[:, 0]
        top.bar(at, [each.kernels for each in shown])
        top.set_ylabel("kernels pruned")
        if rest:
            count = sum(each.kernels for each in rest)
            top.set_title(f"{count} more kernels in {len(rest)} smaller sets", fontsize=9)
        for x, each in zip(at, shown, strict=True):
            members = [criteria.index(name) for name in each.criteria]
            bottom.plot([x] * len(criteria), range(len(criteria)), "o", color="0.85", markersize=5)
            bottom.plot([x] * len(members), members, "o-", color=PALETTE[0], markersize=5)
        bottom.set_yticks(range(len(criteria)), criteria)
        bottom.invert_yaxis()
        bottom.tick_params(axis="x", bottom=False, labelbottom=False)
        for side in ("bottom", "left"):
            bottom.spines[side].set_visible(False)
    return figure


def history(rows: Sequence[KernelHistory]) -> Figure:
    """How kernels weaken as training goes on, and how their eigenvalues turn real or complex.

    Args:
        rows: an epoch each, all of the same criteria.
    """
    epochs = [row.epoch for row in rows]
    with panels(1, 2, (10, 3.6)) as (figure, axes):
        left, right = axes[0]
        right.plot(epochs, [100 * row.real for row in rows], "o-", color="black")
        right.set_ylabel("kernels with real eigenvalues only (%)")
        for index, name in enumerate(rows[0].shares):
            shares = [100 * row.shares[name] for row in rows]
            left.plot(epochs, shares, marker="o", markersize=4, **_line(index, name))
        left.set_ylabel("conv kernels below the threshold (%)")
        left.legend(fontsize=8)
        label_epochs(left, right)
    return figure


def prunable_shares(records: Sequence[PruningCase]) -> Figure:
    """The largest share every criterion can prune, a panel per network, a bar per start.

    Args:
        records: a network, start and criterion each.
    """
    networks = list(dict.fromkeys(record.network for record in records))
    starts = list(dict.fromkeys(record.start for record in records))
    criteria = list(dict.fromkeys(record.prunable.criterion for record in records))
    size = (4.2 * len(networks) + 1, 4)
    with panels(1, len(networks), size, sharey=True) as (figure, axes):
        for axis, network in zip(axes.flat, networks, strict=True):
            for index, start in enumerate(starts):
                rows = [r.prunable for r in records if (r.network, r.start) == (network, start)]
                axis.barh(
                    [criteria.index(row.criterion) + 0.4 * (index - 0.5) for row in rows],
                    [100 * row.share for row in rows],
                    0.4,
                    color=PALETTE[index],
                    label=start,
                )
            axis.set(xlabel="kernels pruned (%)", title=network)
            axis.set_yticks(range(len(criteria)), criteria)
        axes[0, 0].invert_yaxis()
        axes[0, -1].legend()
    return figure


def protocol(summary: Sequence[TrialSummary]) -> Figure:
    """Kernels pruned and accuracy along the protocol, by criterion, with the spread over seeds.

    Args:
        summary: a criterion each.
    """
    at = np.arange(len(summary))
    with panels(1, 2, (10, 0.35 * len(summary) + 1.5), sharey=True) as (figure, axes):
        left, right = axes[0]

        def bars(axis: Axes, shift: float, shares: Sequence[Spread], **options: Any) -> None:
            means, deviations = means_and_deviations(shares)
            axis.barh(at + shift, means, xerr=deviations, **options)

        bars(left, 0, [row.pruned for row in summary], height=0.6)
        left.set(xlabel="kernels below the threshold (%)")
        left.set_yticks(at, [row.criterion for row in summary])
        left.invert_yaxis()
        stages = {
            "after L1 training": [row.accuracy_l1 for row in summary],
            "pruned": [row.accuracy_pruned for row in summary],
            "retrained": [row.accuracy_retrained for row in summary],
        }
        for index, (label, accuracies) in enumerate(stages.items()):
            bars(right, 0.27 * (index - 1), accuracies, height=0.27, label=label)
        right.set(xlabel="test accuracy (%)")
        legend_beside(right)
    return figure


def _line(index: int, criterion: str) -> LineStyle:
    """Colour, dashes and label of a criterion."""
    return line_style(index, criterion, {"random": ":", "det_gram": "--"}.get(criterion, "-"))
