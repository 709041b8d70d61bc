"""Pictures of pruning, each a function from the record of ``prune/result.json`` to a figure."""

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from jnnk.report.figures.style import (
    MOST_NAMES,
    PALETTE,
    STYLE,
    by_layer,
    label_epochs,
    label_layers,
    make_axes,
)


def pruning_sweep(sweep: dict, *, criterion: str, share: float, tolerance: float) -> Figure:
    """Accuracy and the paper's score against the share of conv kernels pruned, no fine-tuning.

    Args:
        sweep: the ``sweep`` of :func:`jnnk.jobs.prune.prune`.
        criterion: the one the network is pruned by, drawn thick.
        share: the share it is pruned at.
        tolerance: accuracy that may be lost, in percentage points.
    """
    with mpl.rc_context(STYLE):
        figure, (left, right) = make_axes(1, 2, (10, 4))
        for axis, field, factor in ((left, "accuracy", 100), (right, "score", 1)):
            for index, (name, points) in enumerate(sweep["criteria"].items()):
                axis.plot(
                    [100 * point["share"] for point in points],
                    [factor * point[field] for point in points],
                    **_line(index, name),
                    linewidth=2.5 if name == criterion else 1.2,
                )
            axis.axvline(100 * share, color="grey", linewidth=0.8, linestyle="--")
            axis.set_xlabel("conv kernels pruned (%)")
        left.axhline(
            100 * sweep["accuracy"] - tolerance, color="grey", linewidth=0.8, linestyle="--"
        )
        left.set_ylabel("test accuracy (%)")
        right.set_ylabel("(acc/acc₀) (1 - params/params₀)")
        right.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def kernel_score_ranges(scores: list[dict], *, criterion: str) -> Figure:
    """Range and quartiles of one criterion's score in every layer.

    Args:
        scores: the ``scores`` of the record.
        criterion: the one shown.
    """
    rows = [record for record in scores if record["criterion"] == criterion]
    boxes = [
        dict(zip(("whislo", "q1", "med", "q3", "whishi"), record["quantiles"], strict=True))
        for record in rows
    ]
    with mpl.rc_context(STYLE):
        figure, axis = make_axes(1, 1, by_layer(len(rows), 3.6))
        axis.bxp(
            boxes, positions=range(len(rows)), showfliers=False, showcaps=len(rows) <= MOST_NAMES
        )
        label_layers(axis, [record["layer"] for record in rows])
        axis.set_ylabel(f"{criterion} of a kernel")
        axis.set_ylim(bottom=0)
    return figure


def eigenvalue_kinds(records: list[dict], *, chance: float | None) -> Figure:
    """Share of kernels with real eigenvalues only, by layer, before and after pruning.

    Args:
        records: the ``eigenvalues`` of the record.
        chance: that share among random kernels, drawn as a line; None where kernels differ in size.
    """
    with mpl.rc_context(STYLE):
        figure, axis = make_axes(1, 1, by_layer(len(records), 3.6))
        at = np.arange(len(records))
        before = [record["real"] / record["kernels"] for record in records]
        after = [
            record["kept_real"] / record["kept"] if record["kept"] else np.nan for record in records
        ]
        for shift, shares, label in ((-0.2, before, "all kernels"), (0.2, after, "kernels kept")):
            axis.bar(at + shift, 100 * np.array(shares), 0.4, label=label)
        if chance is not None:
            axis.axhline(100 * chance, color="grey", linestyle="--", label="random kernels")
        label_layers(axis, [record["layer"] for record in records])
        axis.set_ylabel("kernels with real\neigenvalues only (%)")
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def pruned_by_threshold(thresholds: list[float], records: list[dict]) -> Figure:
    """Share of all kernels below a significance threshold, a line a criterion.

    Args:
        thresholds: in the unit of the weights, ascending.
        records: ``by_threshold`` of the record: ``criterion``, ``layer`` (None for the network) and
            ``shares``.
    """
    with mpl.rc_context(STYLE):
        figure, axis = make_axes(1, 1, (7.5, 4))
        rows = [record for record in records if record["layer"] is None]
        for index, record in enumerate(rows):
            shares = 100 * np.array(record["shares"])
            axis.plot(thresholds, shares, **_line(index, record["criterion"]))
        axis.set(xscale="log", xlabel="threshold t: det is compared with tⁿ, det_gram t²ⁿ")
        axis.set(ylabel="conv kernels below it (%)", ylim=(0, 100))
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def pruned_by_threshold_and_layer(thresholds: list[float], records: list[dict]) -> Figure:
    """Share of a layer's kernels below a significance threshold, a panel a criterion.

    Args:
        thresholds: in the unit of the weights, ascending, evenly spaced in their logarithm.
        records: as in :func:`pruned_by_threshold`.
    """
    rows = [record for record in records if record["layer"] is not None]
    criteria = list(dict.fromkeys(record["criterion"] for record in rows))
    columns = min(len(criteria), 4)
    height = -(-len(criteria) // columns)
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure, axes = make_axes(
            height, columns, (2.6 * columns, 2.6 * height), squeeze=False, sharex=True, sharey=True
        )
        for axis, criterion in zip(axes.flat, criteria, strict=False):
            shares = [record["shares"] for record in rows if record["criterion"] == criterion]
            image = axis.pcolormesh(
                thresholds, range(len(shares)), 100 * np.array(shares), vmin=0, vmax=100,
                cmap="viridis", shading="nearest", rasterized=True,
            )  # fmt: skip
            axis.set(xscale="log", title=criterion)
        axes[0, 0].invert_yaxis()
        shown, spare = np.split(axes.ravel(), [len(criteria)])
        for axis in spare:
            axis.remove()
        figure.supxlabel("threshold")
        figure.supylabel("layer, from the input on")
        figure.colorbar(image, ax=shown, label="kernels below it (%)")
    return figure


def pruned_by_layer(records: list[dict]) -> Figure:
    """Share of kernels every criterion prunes in every layer, all at one share of the network.

    Args:
        records: ``by_layer`` of the record: ``layer``, ``kernels`` and a share for each criterion.
    """
    criteria = [name for name in records[0] if name not in ("layer", "kernels")]
    shares = np.array([[100 * record[name] for record in records] for name in criteria])
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure, axis = make_axes(1, 1, by_layer(len(records), 3.8))
        image = axis.imshow(shares, cmap="viridis", vmin=0, vmax=100, aspect="auto")
        label_layers(axis, [record["layer"] for record in records])
        axis.set_yticks(range(len(criteria)), criteria)
        figure.colorbar(image, ax=axis, label="kernels pruned (%)")
    return figure


def agreement(intersections: list[dict], *, criteria: list[str], most: int = 20) -> Figure:
    """Kernels pruned by exactly the criteria marked below each bar (an UpSet chart).

    Args:
        intersections: ``agreement`` of the record, largest first.
        criteria: names of all criteria compared.
        most: number of bars; the rest is summed up in the title.
    """
    shown, rest = intersections[:most], intersections[most:]
    at = np.arange(len(shown))
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure, (top, bottom) = make_axes(
            2, 1, (8, 5), sharex=True, height_ratios=(2, 0.25 * len(criteria))
        )
        top.bar(at, [each["kernels"] for each in shown])
        top.set_ylabel("kernels pruned")
        if rest:
            count = sum(each["kernels"] for each in rest)
            top.set_title(f"{count} more kernels in {len(rest)} smaller sets", fontsize=9)
        for x, each in zip(at, shown, strict=True):
            members = [criteria.index(name) for name in each["criteria"]]
            bottom.plot([x] * len(criteria), range(len(criteria)), "o", color="0.85", markersize=5)
            bottom.plot([x] * len(members), members, "o-", color=PALETTE[0], markersize=5)
        bottom.set_yticks(range(len(criteria)), criteria)
        bottom.invert_yaxis()
        bottom.tick_params(axis="x", bottom=False, labelbottom=False)
        for side in ("bottom", "left"):
            bottom.spines[side].set_visible(False)
    return figure


def history(records: list[dict]) -> Figure:
    """How kernels weaken as training goes on, and how their eigenvalues turn real or complex.

    Args:
        records: ``history`` of the record: ``epoch``, ``real`` and a share for each criterion.
    """
    epochs = [record["epoch"] for record in records]
    with mpl.rc_context(STYLE):
        figure, (left, right) = make_axes(1, 2, (10, 3.6))
        right.plot(epochs, [100 * record["real"] for record in records], "o-", color="black")
        right.set_ylabel("kernels with real eigenvalues only (%)")
        for index, name in enumerate(name for name in records[0] if name not in ("epoch", "real")):
            shares = [100 * record[name] for record in records]
            left.plot(epochs, shares, marker="o", markersize=4, **_line(index, name))
        left.set_ylabel("conv kernels below the threshold (%)")
        left.legend(fontsize=8)
        label_epochs(left, right)
    return figure


def prunable_shares(records: list[dict]) -> Figure:
    """The largest share every criterion can prune, a panel a network, a bar a start.

    Args:
        records: of :func:`jnnk.experiments.pruning.reproduce_pruning`.
    """
    networks = list(dict.fromkeys(record["network"] for record in records))
    starts = list(dict.fromkeys(record["start"] for record in records))
    criteria = list(dict.fromkeys(record["criterion"] for record in records))
    with mpl.rc_context(STYLE):
        figure, axes = make_axes(
            1, len(networks), (4.2 * len(networks) + 1, 4), squeeze=False, sharey=True
        )
        for axis, network in zip(axes.flat, networks, strict=True):
            for index, start in enumerate(starts):
                rows = [r for r in records if (r["network"], r["start"]) == (network, start)]
                axis.barh(
                    [criteria.index(r["criterion"]) + 0.4 * (index - 0.5) for r in rows],
                    [100 * r["share"] for r in rows],
                    0.4,
                    color=PALETTE[index],
                    label=start,
                )
            axis.set(xlabel="kernels pruned (%)", title=network)
            axis.set_yticks(range(len(criteria)), criteria)
        axes[0, 0].invert_yaxis()
        axes[0, -1].legend()
    return figure


def protocol(summary: list[dict]) -> Figure:
    """Kernels pruned and accuracy along the protocol, by criterion, with the spread over seeds.

    Args:
        summary: of :func:`jnnk.jobs.protocol.protocol`.
    """
    at = np.arange(len(summary))
    with mpl.rc_context(STYLE):
        figure, (left, right) = make_axes(1, 2, (10, 0.35 * len(summary) + 1.5), sharey=True)

        def bars(axis, shift, measure, factor, **options):
            axis.barh(
                at + shift,
                [factor * record[measure] for record in summary],
                xerr=[factor * (record[f"{measure}_std"] or 0) for record in summary],
                **options,
            )

        bars(left, 0, "pruned", 100, height=0.6)
        left.set(xlabel="kernels below the threshold (%)")
        left.set_yticks(at, [record["criterion"] for record in summary])
        left.invert_yaxis()
        for index, stage in enumerate(("l1", "pruned", "retrained")):
            label = {"l1": "after L1 training"}.get(stage, stage)
            bars(right, 0.27 * (index - 1), f"accuracy_{stage}", 100, height=0.27, label=label)
        right.set(xlabel="test accuracy (%)")
        right.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _line(index: int, criterion: str) -> dict:
    """Colour, dashes and label of a criterion: dashes tell apart lines that coincide."""
    style = {"random": ":", "det_gram": "--"}.get(criterion, "-")
    return {"color": PALETTE[index % len(PALETTE)], "linestyle": style, "label": criterion}
