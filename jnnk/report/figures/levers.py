"""Pictures of the studies of overlap as a lever, each a function from records to a figure."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jnnk.report.figures.style import (
    PALETTE,
    label_epochs,
    legend_beside,
    line_with_deviations,
    means_and_deviations,
    panels,
)
from jnnk.runs.records import Spread
from jnnk.runs.study_records import ChannelSummary, RegularizerSummary, StoppedTraining

_PANELS = (
    ("hard Jaccard overlap", attrgetter("overlap"), 1),
    ("test accuracy (%)", attrgetter("accuracy"), 100),
    ("training - test accuracy (points)", attrgetter("gap"), 100),
    ("kernels prunable (%)", attrgetter("prunable"), 100),
)
_STAGES = {"one-shot": attrgetter("one_shot"), "fine-tuned": attrgetter("fine_tuned")}
_COSTS = {"MACs": attrgetter("cost.macs"), "measured latency": attrgetter("cost.latency")}


def regularizer_effects(summary: Sequence[RegularizerSummary]) -> Figure:
    """Overlap, accuracy, gap and prunability against the strength of each penalty.

    Args:
        summary: a penalty and strength each.
    """
    with panels(1, 4, (13, 3.4)) as (figure, axes):
        for axis, (label, measure, factor) in zip(axes[0], _PANELS, strict=True):
            _lines_of_penalties(axis, summary, measure, factor)
            strengths = sorted({row.strength for row in summary})
            least = min((abs(strength) for strength in strengths if strength), default=1)
            axis.set_xscale("symlog", linthresh=least)
            axis.set_xticks(strengths, [f"{strength:g}" for strength in strengths], minor=False)
            axis.minorticks_off()
            axis.margins(x=0.08)
            axis.set(xlabel="strength", ylabel=label)
        legend_beside(axes[0, -1])
    return figure


def _lines_of_penalties(
    axis: Axes,
    summary: Sequence[RegularizerSummary],
    measure: Callable[[RegularizerSummary], Spread],
    factor: float,
) -> None:
    """A measure against strength, a line a penalty, and a band where there is no penalty."""
    penalties = dict.fromkeys(row.penalty for row in summary if row.penalty != "none")
    for marker, penalty in zip("osD^v", penalties, strict=False):
        rows = [row for row in summary if row.penalty == penalty]
        line_with_deviations(
            axis, [row.strength for row in rows], [measure(row) for row in rows],
            factor=factor, marker=marker, linewidth=1, label=penalty,
        )  # fmt: skip
    none = next((row for row in summary if row.penalty == "none"), None)
    if none is not None:
        (middle,), (spread,) = means_and_deviations([measure(none)], factor=factor)
        axis.axhline(middle, color="grey", linestyle="--", linewidth=1, label="no penalty")
        axis.axhspan(middle - spread, middle + spread, color="grey", alpha=0.15, linewidth=0)


def stopping_rules(records: Sequence[StoppedTraining]) -> Figure:
    """Test accuracy against the images seen, and the accuracy over epochs, by stopping rule.

    Args:
        records: a training each.
    """
    rules = dict.fromkeys(record.rule for record in records)
    with panels(1, 2, (10, 3.8)) as (figure, axes):
        left, right = axes[0]
        for number, rule in enumerate(rules):
            rows = [record for record in records if record.rule == rule]
            color = PALETTE[number]
            points = [(row.passes, 100 * row.accuracy) for row in rows]
            left.plot(*zip(*points, strict=True), "o", markersize=4, alpha=0.5, color=color)
            left.plot(
                *np.mean(points, axis=0), "D", markersize=9, color=color,
                markeredgecolor="black", label=rule,
            )  # fmt: skip
            if rule == "nnk":  # the same trainings as "none", cut short
                continue
            for row in rows:
                epochs = np.arange(1, len(row.accuracies) + 1)
                right.plot(
                    epochs, 100 * np.array(row.accuracies), color=color, linewidth=0.8, alpha=0.6
                )
                right.plot(epochs[-1], 100 * row.accuracies[-1], "|", color=color)
        left.set(xlabel="images seen (passes over all)", ylabel="test accuracy (%)")
        left.legend(title="stopping")
        right.set_ylabel("test accuracy (%)")
        label_epochs(right)
    return figure


def channel_pruning(summary: Sequence[ChannelSummary]) -> Figure:
    """Accuracy at once and fine-tuned against MACs and against latency, by criterion.

    Lines are dashed where channels of the residual streams went too.

    Args:
        summary: a network, share and criterion each.
    """
    networks = dict.fromkeys(row.network for row in summary)
    criteria = dict.fromkeys(row.criterion for row in summary)
    columns = list(itertools.product(_STAGES.items(), _COSTS.items()))
    with panels(len(networks), 4, (15, 3.5 * len(networks))) as (figure, axes):
        for row, network in zip(axes, networks, strict=True):
            of_network = [each for each in summary if each.network == network]
            for axis, ((stage, accuracy), (what, cost)) in zip(row, columns, strict=True):
                _lines_of_criteria(axis, of_network, criteria, cost, accuracy)
                before = of_network[0].accuracy_before
                axis.axhline(100 * before, color="grey", linestyle=":", linewidth=1)
                axis.set(
                    xlabel=f"{what} (% of the whole)",
                    ylabel="test accuracy (%)",
                    title=f"{network}, {stage}",
                )
            has_streams = any(each.streams for each in of_network)
            legend_beside(row[-1], title="dashed: streams too" if has_streams else None)
    return figure


def _lines_of_criteria(
    axis: Axes,
    summary: Sequence[ChannelSummary],
    criteria: Iterable[str],
    cost: Callable[[ChannelSummary], float],
    accuracy: Callable[[ChannelSummary], Spread],
) -> None:
    """Accuracy against a cost, a line per criterion: redundancy thick, streams dashed."""
    for number, criterion in enumerate(criteria):
        for streams in (False, True):
            rows = [
                row
                for row in summary
                if (row.criterion, row.streams) == (criterion, streams)
                and accuracy(row).mean is not None
            ]
            line_with_deviations(
                axis, [100 * cost(row) for row in rows], [accuracy(row) for row in rows],
                factor=100, marker="osD^vPX"[number % 7], color=PALETTE[number % len(PALETTE)],
                linestyle="--" if streams else "-", label=None if streams else criterion,
                linewidth=2 if "redundancy" in criterion else 1,
            )  # fmt: skip
