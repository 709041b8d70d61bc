"""Pictures of several runs side by side, each a function from records to a figure."""

from collections.abc import Mapping, Sequence
from operator import attrgetter

from matplotlib.figure import Figure

from jnnk.report.figures.layers import OVERLAP, label_layers
from jnnk.report.figures.style import (
    LineStyle,
    label_epochs,
    line_style,
    line_with_limits,
    panel,
    panels,
)
from jnnk.runs.records import EpochMetrics, LayerRecord, PruningResult

_DASHES = ("-", "--", ":", "-.")
_MEASURES = {**OVERLAP, "redundancy (0 disjoint, 1 equal)": attrgetter("redundancy")}


def accuracy_by_epoch(runs: Mapping[str, Sequence[EpochMetrics]]) -> Figure:
    """Test accuracy against the epoch, a line per run.

    Args:
        runs: name to the epochs of its training.
    """
    with panel((8, 3.6)) as (figure, axis):
        for index, (run, rows) in enumerate(runs.items()):
            axis.plot(
                [row.epoch for row in rows],
                [100 * row.test_accuracy for row in rows],
                **_line(index, run),
            )
        axis.set_ylabel("test accuracy (%)")
        label_epochs(axis)
        axis.legend()
    return figure


def overlap_by_depth(runs: Mapping[str, Sequence[LayerRecord]]) -> Figure:
    """Mean overlap and redundancy against depth with 95 % limits, a line per run.

    Args:
        runs: name to the layers at one epoch. They stand by name where all runs have the same
            ones, and else by their place.
    """
    layers = {tuple(row.layer for row in rows) for rows in runs.values()}
    place = attrgetter("layer" if len(layers) == 1 else "depth")
    with panels(1, 2, (10, 4)) as (figure, axes):
        for axis, (label, measure) in zip(axes[0], _MEASURES.items(), strict=True):
            for index, (run, rows) in enumerate(runs.items()):
                points = [measure(row.measures) for row in rows]
                style = {**_line(index, run), "linewidth": 1.5}
                line_with_limits(axis, [place(row) for row in rows], points, **style)
            axis.set(xlabel="layer, from the input on", ylabel=label)
            axis.set_ylim(bottom=0)
            if len(layers) == 1:
                label_layers(axis, *layers, rotation=90)
        axes[0, 0].legend()
    return figure


def sweep_by_run(runs: Mapping[str, PruningResult]) -> Figure:
    """Test accuracy against the share of kernels pruned without fine-tuning, a line per run.

    Args:
        runs: name to its pruning, of which the criterion pruned by is shown.
    """
    with panel((8, 4)) as (figure, axis):
        for index, (run, pruning) in enumerate(runs.items()):
            points = pruning.sweep.criteria[pruning.criterion]
            axis.plot(
                [100 * point.share for point in points],
                [100 * point.accuracy for point in points],
                **_line(index, f"{run} ({pruning.criterion})"),
            )
        axis.set(xlabel="conv kernels pruned (%)", ylabel="test accuracy (%)")
        axis.legend()
    return figure


def _line(index: int, label: str) -> LineStyle:
    """Colour, dashes and label of a run."""
    return line_style(index, label, _DASHES[index % len(_DASHES)])
