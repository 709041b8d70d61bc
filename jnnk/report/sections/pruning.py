"""The report's sections on pruning, and the tables beside them in ``prune/tables/``."""

from typing import Any

from jnnk.pruning import chance_of_real
from jnnk.report.explorers import threshold_explorer, to_html
from jnnk.report.figures import pruning as figures
from jnnk.report.output import draw, percent, points, save_table
from jnnk.report.page import Drawing, Section
from jnnk.report.tables import to_csv
from jnnk.runs.folder import Run


def prune_sections(run: Run, results: dict[str, Any]) -> list[Section]:
    """Figures and tables of a pruning, and what the report says of them.

    Args:
        run: the run folder.
        results: of :func:`jnnk.jobs.report.collect`.
    """
    pruning = results["pruning"]
    if pruning is None:
        return []
    tables = _tables(pruning)
    for name, (caption, records) in tables.items():
        if records:
            save_table(run.path / "prune" / "tables", name, records, caption=caption)
    numbers = {name: records for name, (_, records) in tables.items()}
    sections = [_cost(run, pruning, results["pruning_settings"], numbers)]
    if pruning["scores"]:  # nothing to say of the kernels where random is the only criterion
        sections = [_kernels(run, pruning, numbers), *sections, _agreement(run, pruning, numbers)]
    return sections


def _tables(pruning: dict[str, Any]) -> dict[str, tuple[str, list[dict]]]:
    """Every number of the record that is a table: name to caption and records."""
    return {
        "sweep": (
            "Pruning without fine-tuning: accuracy and score by criterion and share.",
            [
                {"criterion": name, **point}
                for name, points in pruning["sweep"]["criteria"].items()
                for point in points
            ],
        ),
        "scores": (
            "Quantiles of the kernels' scores in the unit of the weights.",
            [
                {key: r[key] for key in ("layer", "criterion", "kernels")}
                | dict(zip(("min", "q25", "median", "q75", "max"), r["quantiles"], strict=True))
                for r in pruning["scores"]
            ],
        ),
        "pruned_by_threshold": (
            "Share of kernels below a significance threshold.",
            [
                {"criterion": r["criterion"], "layer": r["layer"] or "all"}
                | dict(zip([f"{t:.2g}" for t in pruning["thresholds"]], r["shares"], strict=True))
                for r in pruning["by_threshold"]
            ],
        ),
        "pruned_by_layer": (
            f"Share of kernels pruned in every layer at {percent(pruning['compared_share'])} "
            "of the network.",
            pruning["by_layer"],
        ),
        "agreement": (
            "Kernels pruned by exactly these criteria.",
            [
                {"criteria": " ".join(r["criteria"]), "kernels": r["kernels"]}
                for r in pruning["agreement"]
            ],
        ),
        "eigenvalues": (
            "Kernels with real eigenvalues only, before and after pruning.",
            pruning["eigenvalues"],
        ),
        "history": ("Share of kernels below the threshold, by epoch.", pruning["history"]),
    }


def _shown(pruning: dict[str, Any]) -> str:
    """The criterion pruned by; another one where it has no scores in the unit of the weights."""
    known = [record["criterion"] for record in pruning["scores"]]
    return pruning["criterion"] if pruning["criterion"] in known else known[0]


def _kernels(run: Run, pruning: dict[str, Any], numbers: dict[str, list[dict]]) -> Section:
    shown = _shown(pruning)
    thresholds, by_threshold = pruning["thresholds"], pruning["by_threshold"]
    drawn = [
        draw(
            run,
            "kernel_scores",
            figures.kernel_score_ranges(pruning["scores"], criterion=shown),
            f"Scores of all conv kernels by {shown}, layer by layer, in the unit of the weights.",
            [record for record in numbers["scores"] if record["criterion"] == shown],
        ),
        draw(
            run,
            "pruned_by_threshold",
            figures.pruned_by_threshold(thresholds, by_threshold),
            "Share of the network's kernels below a significance threshold.",
            [record for record in numbers["pruned_by_threshold"] if record["layer"] == "all"],
        ),
        draw(
            run,
            "pruned_by_threshold_and_layer",
            figures.pruned_by_threshold_and_layer(thresholds, by_threshold),
            "The same layer by layer.",
            numbers["pruned_by_threshold"],
        ),
    ]
    if len(pruning["history"]) > 1:
        drawn.append(
            draw(
                run,
                "kernel_history",
                figures.history(pruning["history"]),
                "Left: share of kernels weaker than the trained network's median kernel. Right: "
                "share of kernels without complex eigenvalues. Both as training goes on.",
                numbers["history"],
            )
        )
    text = (
        f"Every k x k slice of a conv kernel scored by {shown}: whiskers from the least to the "
        "largest score of a layer, box from the first to the third quartile. Scores are in the "
        "unit of the weights: determinants are raised to the power that brings them there."
    )
    kinds = pruning["eigenvalues"]
    sizes = {record["size"] for record in kinds}
    if kinds:
        real = sum(record["real"] for record in kinds) / sum(r["kernels"] for r in kinds)
        text += f" {percent(real)} of the kernels have real eigenvalues only"
        chance = chance_of_real(sizes.pop()) if len(sizes) == 1 else None
        text += f"; of random ones it would be {percent(chance)}." if chance else "."
        drawn.append(
            draw(
                run,
                "eigenvalue_kinds",
                figures.eigenvalue_kinds(kinds, chance=chance),
                "Share of kernels whose eigenvalues are all real, before and after pruning.",
                numbers["eigenvalues"],
            )
        )
    return Section("Which conv kernels matter?", text, drawn)


def _cost(
    run: Run,
    pruning: dict[str, Any],
    settings: dict[str, Any],
    numbers: dict[str, list[dict]],
) -> Section:
    criterion, pruned, share = pruning["criterion"], pruning["pruned"], pruning["share_requested"]
    if settings["share"] is None:
        why = f"the largest swept share that loses at most {points(settings['tolerance'])}"
    else:
        why = "the share asked for"
    figure = figures.pruning_sweep(
        pruning["sweep"], criterion=criterion, share=share, tolerance=settings["tolerance"]
    )
    drawn = [
        draw(
            run,
            "pruning_sweep",
            figure,
            "Accuracy, and the score that weighs it against the parameters saved, by the share "
            "of conv kernels pruned, a line a criterion; dashes mark the share pruned and the "
            "tolerance.",
            numbers["sweep"],
        )
    ]
    if pruning["scores"]:
        drawn.insert(0, _explorer(pruning, numbers))
    return Section(
        "What does pruning cost?",
        f"Accuracy on {pruning['sweep']['images']} test images without fine-tuning. Pruned by "
        f"{criterion} at {percent(share)} of the kernels ({why}, chosen on these images), the "
        f"network goes from {percent(pruned['accuracy_before'])} to "
        f"{percent(pruned['accuracy_pruned'])} on all test images, and to "
        f"{percent(pruned['accuracy_finetuned'])} after {pruned['finetune_epochs']} epochs of "
        f"fine-tuning under the mask; {pruned['revived_weights']} pruned weights came back.",
        drawn,
    )


def _explorer(pruning: dict[str, Any], numbers: dict[str, list[dict]]) -> Drawing:
    figure = threshold_explorer(
        pruning["thresholds"],
        pruning["by_threshold"],
        pruning["sweep"],
        criterion=_shown(pruning),
        share=pruning["share_requested"],
        kernels=sum(record["kernels"] for record in pruning["by_layer"]),
    )
    return Drawing(
        "threshold_explorer",
        to_html(figure, "threshold_explorer"),
        "The slider sets a threshold: each point shows how many kernels a criterion prunes below "
        "it, and the accuracy left, between swept shares by the straight line.",
        to_csv(numbers["sweep"]),
    )


def _agreement(run: Run, pruning: dict[str, Any], numbers: dict[str, list[dict]]) -> Section:
    criteria = [name for name in pruning["by_layer"][0] if name not in ("layer", "kernels")]
    total = sum(each["kernels"] for each in pruning["agreement"])
    common = sum(e["kernels"] for e in pruning["agreement"] if len(e["criteria"]) == len(criteria))
    return Section(
        "Do the criteria agree?",
        f"Every criterion prunes {percent(pruning['compared_share'])} of the network's kernels. "
        f"All of them choose the same {common} kernels, out of {total} that any of them chooses.",
        [
            draw(
                run,
                "agreement",
                figures.agreement(pruning["agreement"], criteria=criteria),
                "Kernels pruned by exactly the criteria marked below each bar.",
                numbers["agreement"],
            ),
            draw(
                run,
                "pruned_by_layer",
                figures.pruned_by_layer(pruning["by_layer"]),
                "Share of the kernels pruned in every layer, by criterion.",
                numbers["pruned_by_layer"],
            ),
        ],
    )
