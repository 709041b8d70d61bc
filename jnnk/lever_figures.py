"""Pictures of the studies of overlap as a lever, each a function from records to a figure."""

import matplotlib as mpl
from matplotlib.figure import Figure

from jnnk.figure_style import STYLE, make_axes

_PANELS = (
    ("overlap", "hard Jaccard overlap", 1),
    ("accuracy", "test accuracy (%)", 100),
    ("gap", "training - test accuracy (points)", 100),
    ("prunable", "kernels prunable (%)", 100),
)


def regularizer_effects(summary: list[dict]) -> Figure:
    """Overlap, accuracy, gap and prunability against the strength of each penalty.

    Args:
        summary: of :func:`jnnk.jobs.reproduce_regularizer.summarize_cases`.
    """
    none = next((record for record in summary if record["penalty"] == "none"), None)
    penalties = dict.fromkeys(r["penalty"] for r in summary if r["penalty"] != "none")
    with mpl.rc_context(STYLE):
        figure, axes = make_axes(1, 4, (13, 3.4))
        for axis, (name, label, factor) in zip(axes, _PANELS, strict=True):
            for penalty in penalties:
                rows = [record for record in summary if record["penalty"] == penalty]
                axis.errorbar(
                    [row["strength"] for row in rows],
                    [_scaled(factor, row[name]) for row in rows],
                    yerr=[factor * (row[f"{name}_std"] or 0) for row in rows],
                    marker="o", markersize=4, capsize=2, linewidth=1, label=penalty,
                )  # fmt: skip
            if none is not None:
                middle, spread = _scaled(factor, none[name]), factor * (none[f"{name}_std"] or 0)
                axis.axhline(middle, color="grey", linestyle="--", linewidth=1, label="no penalty")
                axis.axhspan(
                    middle - spread, middle + spread, color="grey", alpha=0.15, linewidth=0
                )
            least = min((abs(r["strength"]) for r in summary if r["strength"]), default=1)
            axis.set_xscale("symlog", linthresh=least)
            axis.set(xlabel="strength", ylabel=label)
        axes[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _scaled(factor: float, value: float | None) -> float:
    return float("nan") if value is None else factor * value
