"""Pictures of several runs side by side, each a function from records to a figure."""

import matplotlib as mpl
from matplotlib.figure import Figure

from jnnk.report.figures.style import (
    PALETTE,
    STYLE,
    label_epochs,
    label_layers,
    line_with_limits,
    make_axes,
)

_STYLES = ("-", "--", ":", "-.")


def accuracy_by_epoch(records: list[dict]) -> Figure:
    """Test accuracy against the epoch, a line a run.

    Args:
        records: ``run``, ``epoch`` and ``test_accuracy`` each.
    """
    with mpl.rc_context(STYLE):
        figure, axis = make_axes(1, 1, (8, 3.6))
        for index, (run, rows) in enumerate(_by_run(records).items()):
            axis.plot(
                [row["epoch"] for row in rows],
                [100 * row["test_accuracy"] for row in rows],
                **_line(index, run),
            )
        axis.set_ylabel("test accuracy (%)")
        label_epochs(axis)
        axis.legend()
    return figure


def overlap_by_depth(records: list[dict]) -> Figure:
    """Mean overlap and redundancy against depth with 95 % limits, a line a run.

    Args:
        records: of `jnnk.jobs.overlap.overlap`, each with its ``run``. Layers stand by name where
            all runs have the same ones, and else by their place.
    """
    runs = _by_run(records)
    layers = {tuple(row["layer"] for row in rows) for rows in runs.values()}
    x = "layer" if len(layers) == 1 else "depth"
    with mpl.rc_context(STYLE):
        figure, axes = make_axes(1, 2, (10, 4))
        for axis, field, label in zip(
            axes,
            ("overlap", "redundancy"),
            ("mean channel overlap (Jaccard)", "redundancy (0 disjoint, 1 equal)"),
            strict=True,
        ):
            for index, (run, rows) in enumerate(runs.items()):
                line_with_limits(axis, rows, x, field, **{**_line(index, run), "linewidth": 1.5})
            axis.set(xlabel="layer, from the input on", ylabel=label)
            axis.set_ylim(bottom=0)
            if x == "layer":
                label_layers(axis, *layers, rotation=90)
        axes[0].legend()
    return figure


def sweep_by_run(records: list[dict]) -> Figure:
    """Test accuracy against the share of kernels pruned without fine-tuning, a line a run.

    Args:
        records: ``run``, ``criterion``, ``share`` and ``accuracy`` each.
    """
    with mpl.rc_context(STYLE):
        figure, axis = make_axes(1, 1, (8, 4))
        for index, (run, rows) in enumerate(_by_run(records).items()):
            axis.plot(
                [100 * row["share"] for row in rows],
                [100 * row["accuracy"] for row in rows],
                **_line(index, f"{run} ({rows[0]['criterion']})"),
            )
        axis.set(xlabel="conv kernels pruned (%)", ylabel="test accuracy (%)")
        axis.legend()
    return figure


def _by_run(records: list[dict]) -> dict[str, list[dict]]:
    runs: dict[str, list[dict]] = {}
    for record in records:
        runs.setdefault(record["run"], []).append(record)
    return runs


def _line(index: int, label: str) -> dict:
    """Colour, dashes and label of a run: dashes tell apart lines that coincide."""
    return {
        "color": PALETTE[index % len(PALETTE)],
        "linestyle": _STYLES[index % len(_STYLES)],
        "label": label,
    }
