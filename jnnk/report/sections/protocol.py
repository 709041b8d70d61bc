"""The report's sections on the paper's protocol, and its tables in ``protocol/NAME/tables/``."""

from collections.abc import Mapping

from jnnk.report.figures import pruning as figures
from jnnk.report.output import draw, percent, save_table
from jnnk.report.page import Section
from jnnk.runs.folder import Run
from jnnk.runs.records import ProtocolResult


def protocol_sections(run: Run, protocols: Mapping[str, ProtocolResult]) -> list[Section]:
    """A section for every protocol that has run.

    Args:
        run: the run folder.
        protocols: by name.
    """
    return [_section(run, name, result) for name, result in protocols.items()]


def _section(run: Run, name: str, result: ProtocolResult) -> Section:
    settings, summary = result.settings, result.summary
    folder = run.path / "protocol" / name / "tables"
    caption = f"Protocol {name}: mean and standard deviation over seeds."
    save_table(folder, "summary", summary, caption=caption)
    save_table(folder, "trials", result.trials, caption=f"Protocol {name}: every trial.")
    save_table(folder, "history", result.history, caption="Share below the threshold by epoch.")
    best = max(summary, key=lambda each: each.score.mean)
    start = "a random start" if settings.scratch else "the run's network"
    text = (
        f"{settings.epochs} epochs of training from {start} with an L1 penalty of "
        f"{settings.l1:g} on conv kernels, pruning of the kernels below "
        f"{settings.threshold:g} by each criterion, {settings.retrain_epochs} epochs of "
        f"retraining under the mask; {best.seeds} seeds. The best score, "
        f"(acc/acc0)(1 - params/params0), is {best.score.mean:.3f}: {best.criterion} prunes "
        f"{percent(best.pruned.mean)} and goes from {percent(best.accuracy_l1.mean)} to "
        f"{percent(best.accuracy_retrained.mean)}."
    )
    if result.in_paper:
        text += " The paper (arXiv 2102.02804) reports this network and protocol."
    drawn = [
        draw(
            run,
            f"protocol_{name}",
            figures.protocol(summary),
            "Kernels pruned and accuracy by criterion; whiskers are standard deviations.",
            summary,
        ),
        draw(
            run,
            f"protocol_{name}_history",
            figures.history(result.history),
            "Share of kernels below the threshold, and of those with real eigenvalues only, as the "
            "L1 training of the first seed goes on.",
            result.history,
        ),
    ]
    header = [
        "criterion", "pruned", "±", "accuracy pruned", "accuracy retrained", "±", "score", "±",
    ]  # fmt: skip
    rows = [
        [
            each.criterion,
            *(each.pruned.mean, each.pruned.std),
            each.accuracy_pruned.mean,
            *(each.accuracy_retrained.mean, each.accuracy_retrained.std),
            *(each.score.mean, each.score.std),
        ]
        for each in summary
    ]
    return Section(f"The paper's protocol: {name}", text, drawn, (header, rows))
