"""The report's sections on pruning, and the tables beside them in ``prune/tables/``."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import NamedTuple

from jnnk.files.schema import TableRow
from jnnk.pruning import EigenvalueKinds, chance_of_real
from jnnk.report.explorers import threshold_explorer, to_html
from jnnk.report.figures import pruning as figures
from jnnk.report.output import draw, percent, points, save_table
from jnnk.report.page import Drawing, Section
from jnnk.report.tables import Records, to_csv
from jnnk.runs.folder import Run
from jnnk.runs.records import PruningResult, Sweep
from jnnk.runs.settings import PruneConfig


class _Tables(NamedTuple):
    """A pruning's numbers as rows of tables; the fields name the files."""

    sweep: Records
    scores: Records
    pruned_by_threshold: Records
    pruned_by_layer: Records
    agreement: Records
    eigenvalues: Records
    history: Records


_CAPTIONS = {
    "sweep": "Pruning without fine-tuning: accuracy and score by criterion and share.",
    "scores": "Quantiles of the kernels' scores in the unit of the weights.",
    "pruned_by_threshold": "Share of kernels below a significance threshold.",
    "pruned_by_layer": "Share of kernels pruned in every layer at {share} of the network.",
    "agreement": "Kernels pruned by exactly these criteria.",
    "eigenvalues": "Kernels with real eigenvalues only, before and after pruning.",
    "history": "Share of kernels below the threshold, by epoch.",
}


def prune_sections(
    run: Run, pruning: PruningResult | None, settings: PruneConfig | None
) -> list[Section]:
    """Figures and tables of a pruning, and what the report says of them.

    Args:
        run: the run folder.
        pruning: None if there was none.
        settings: of the pruning; None likewise.
    """
    if pruning is None or settings is None:
        return []
    tables = _tables(pruning)
    share = percent(pruning.compared_share)
    for name, rows in tables._asdict().items():
        if rows:
            caption = _CAPTIONS[name].format(share=share)
            save_table(run.path / "prune" / "tables", name, rows, caption=caption)
    sections = [_cost(run, pruning, settings, tables)]
    if pruning.analysis.criteria:  # nothing to say of the kernels where random is the only one
        sections = [_kernels(run, pruning, tables), *sections, _agreement(run, pruning, tables)]
    return sections


def _tables(pruning: PruningResult) -> _Tables:
    """A pruning's numbers as rows of tables."""
    analysis = pruning.analysis
    quantiles = ("min", "q25", "median", "q75", "max")
    thresholds = [f"{threshold:.2g}" for threshold in analysis.thresholds]
    return _Tables(
        sweep=_sweep_rows(pruning.sweep),
        scores=[
            {"layer": row.layer, "criterion": row.criterion, "kernels": row.kernels}
            | dict(zip(quantiles, row.quantiles, strict=True))
            for row in analysis.scores
        ],
        pruned_by_threshold=[
            {"criterion": row.criterion, "layer": row.layer or "all"}
            | dict(zip(thresholds, row.shares, strict=True))
            for row in analysis.by_threshold
        ],
        pruned_by_layer=analysis.by_layer,
        agreement=[
            {"criteria": " ".join(row.criteria), "kernels": row.kernels}
            for row in analysis.agreement
        ],
        eigenvalues=[row._asdict() for row in analysis.eigenvalues],
        history=pruning.history,
    )


def _sweep_rows(sweep: Sweep) -> list[TableRow]:
    """A row per criterion and share of the sweep."""
    return [
        {"criterion": name, **asdict(point)}
        for name, points in sweep.criteria.items()
        for point in points
    ]


def _shown(pruning: PruningResult) -> str:
    """The criterion pruned by; another one where it has no scores in the unit of the weights."""
    criteria = pruning.analysis.criteria
    return pruning.criterion if pruning.criterion in criteria else criteria[0]


def _kernels(run: Run, pruning: PruningResult, tables: _Tables) -> Section:
    """Scores of the kernels by layer, threshold and epoch, and their eigenvalues."""
    shown, analysis = _shown(pruning), pruning.analysis
    thresholds, by_threshold = analysis.thresholds, analysis.by_threshold
    drawn = [
        draw(
            run,
            "kernel_scores",
            figures.kernel_score_ranges(analysis.scores, criterion=shown),
            f"Scores of all conv kernels by {shown}, layer by layer, in the unit of the weights.",
            [row for row in tables.scores if row["criterion"] == shown],
        ),
        draw(
            run,
            "pruned_by_threshold",
            figures.pruned_by_threshold(thresholds, analysis.of_network),
            "Share of the network's kernels below a significance threshold.",
            [row for row in tables.pruned_by_threshold if row["layer"] == "all"],
        ),
        draw(
            run,
            "pruned_by_threshold_and_layer",
            figures.pruned_by_threshold_and_layer(thresholds, by_threshold),
            "The same layer by layer.",
            tables.pruned_by_threshold,
        ),
    ]
    if len(pruning.history) > 1:
        drawn.append(
            draw(
                run,
                "kernel_history",
                figures.history(pruning.history),
                "Left: share of kernels weaker than the trained network's median kernel. Right: "
                "share of kernels without complex eigenvalues. Both as training goes on.",
                tables.history,
            )
        )
    text = (
        f"Every k x k slice of a conv kernel scored by {shown}: whiskers from the least to the "
        "largest score of a layer, box from the first to the third quartile. Scores are in the "
        "unit of the weights: determinants are raised to the power that brings them there."
    )
    if analysis.eigenvalues:
        said, drawing = _eigenvalues(run, analysis.eigenvalues, tables)
        text += said
        drawn.append(drawing)
    return Section("Which conv kernels matter?", text, drawn)


def _eigenvalues(
    run: Run, kinds: Sequence[EigenvalueKinds], tables: _Tables
) -> tuple[str, Drawing]:
    """How many kernels have real eigenvalues only, in words and layer by layer."""
    real = sum(row.real for row in kinds) / sum(row.kernels for row in kinds)
    sizes = {row.size for row in kinds}
    chance = chance_of_real(sizes.pop()) if len(sizes) == 1 else None
    text = f" {percent(real)} of the kernels have real eigenvalues only"
    text += f"; of random ones it would be {percent(chance)}." if chance else "."
    drawing = draw(
        run,
        "eigenvalue_kinds",
        figures.eigenvalue_kinds(kinds, chance=chance),
        "Share of kernels whose eigenvalues are all real, before and after pruning.",
        tables.eigenvalues,
    )
    return text, drawing


def _cost(run: Run, pruning: PruningResult, settings: PruneConfig, tables: _Tables) -> Section:
    """Accuracy against the share pruned, and what the share chosen costs."""
    criterion, pruned, share = pruning.criterion, pruning.pruned, pruning.share_requested
    if settings.share is None:
        why = f"the largest swept share that loses at most {points(settings.tolerance)}"
    else:
        why = "the share asked for"
    figure = figures.pruning_sweep(
        pruning.sweep, criterion=criterion, share=share, tolerance=settings.tolerance
    )
    drawn = [
        draw(
            run,
            "pruning_sweep",
            figure,
            "Accuracy, and the score that weighs it against the parameters saved, by the share "
            "of conv kernels pruned, a line per criterion; dashes mark the share pruned and the "
            "tolerance.",
            tables.sweep,
        )
    ]
    if pruning.analysis.criteria:
        drawn.insert(0, _explorer(pruning, tables.sweep))
    return Section(
        "What does pruning cost?",
        f"Accuracy on {pruning.sweep.images} test images without fine-tuning. Pruned by "
        f"{criterion} at {percent(share)} of the kernels ({why}, chosen on these images), the "
        f"network goes from {percent(pruned.accuracy_before)} to "
        f"{percent(pruned.accuracy_pruned)} on all test images, and to "
        f"{percent(pruned.accuracy_finetuned)} after {pruned.finetune_epochs} epochs of "
        f"fine-tuning under the mask; {pruned.revived_weights} pruned weights came back.",
        drawn,
    )


def _explorer(pruning: PruningResult, sweep_rows: Records) -> Drawing:
    """The interactive figure of accuracy against the share pruned, with a slider of thresholds."""
    figure = threshold_explorer(
        pruning.analysis.thresholds,
        pruning.analysis.of_network,
        pruning.sweep.criteria,
        criterion=_shown(pruning),
        share=pruning.share_requested,
        kernels=sum(row.kernels for row in pruning.analysis.by_layer),
    )
    return Drawing(
        "threshold_explorer",
        to_html(figure, "threshold_explorer"),
        "The slider sets a threshold: each point shows how many kernels a criterion prunes below "
        "it, and the accuracy left, between swept shares by the straight line.",
        to_csv(sweep_rows),
    )


def _agreement(run: Run, pruning: PruningResult, tables: _Tables) -> Section:
    """Which kernels several criteria prune together, and where in the network they lie."""
    analysis, criteria = pruning.analysis, pruning.analysis.criteria
    total = sum(each.kernels for each in analysis.agreement)
    common = sum(each.kernels for each in analysis.agreement if set(each.criteria) == set(criteria))
    return Section(
        "Do the criteria agree?",
        f"Every criterion prunes {percent(pruning.compared_share)} of the network's kernels. "
        f"All of them choose the same {common} kernels, out of {total} that any of them chooses.",
        [
            draw(
                run,
                "agreement",
                figures.agreement(analysis.agreement, criteria=criteria),
                "Kernels pruned by exactly the criteria marked below each bar.",
                tables.agreement,
            ),
            draw(
                run,
                "pruned_by_layer",
                figures.pruned_by_layer(analysis.by_layer, criteria=criteria),
                "Share of the kernels pruned in every layer, by criterion.",
                tables.pruned_by_layer,
            ),
        ],
    )
