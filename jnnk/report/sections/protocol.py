"""The report's sections on the paper's protocol, and its tables in ``protocol/NAME/tables/``."""

from typing import Any

from jnnk.report.figures import pruning as figures
from jnnk.report.output import draw, percent, save_table
from jnnk.report.page import Section
from jnnk.runs.folder import Run


def protocol_sections(run: Run, protocols: dict[str, dict[str, Any]]) -> list[Section]:
    """A section for every protocol that has run.

    Args:
        run: the run folder.
        protocols: name to record of :func:`jnnk.jobs.protocol.protocol`.
    """
    return [_section(run, name, record) for name, record in protocols.items()]


def _section(run: Run, name: str, record: dict[str, Any]) -> Section:
    settings, summary = record["settings"], record["summary"]
    folder = run.path / "protocol" / name / "tables"
    caption = f"Protocol {name}: mean and standard deviation over seeds."
    save_table(folder, "summary", summary, caption=caption)
    save_table(folder, "trials", record["trials"], caption=f"Protocol {name}: every trial.")
    save_table(folder, "history", record["history"], caption="Share below the threshold by epoch.")
    best = max(summary, key=lambda each: each["score"])
    start = "a random start" if settings["scratch"] else "the run's network"
    text = (
        f"{settings['epochs']} epochs of training from {start} with an L1 penalty of "
        f"{settings['l1']:g} on conv kernels, pruning of the kernels below "
        f"{settings['threshold']:g} by each criterion, {settings['retrain_epochs']} epochs of "
        f"retraining under the mask; {best['seeds']} seeds. The best score, "
        f"(acc/acc0)(1 - params/params0), is {best['score']:.3f}: {best['criterion']} prunes "
        f"{percent(best['pruned'])} and goes from {percent(best['accuracy_l1'])} to "
        f"{percent(best['accuracy_retrained'])}."
    )
    if record["in_paper"]:
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
            figures.history(record["history"]),
            "Share of kernels below the threshold, and of those with real eigenvalues only, as the "
            "L1 training of the first seed goes on.",
            record["history"],
        ),
    ]
    fields = (
        "criterion", "pruned", "pruned_std", "accuracy_pruned", "accuracy_retrained",
        "accuracy_retrained_std", "score", "score_std",
    )  # fmt: skip
    header = [
        "criterion", "pruned", "±", "accuracy pruned", "accuracy retrained", "±", "score", "±",
    ]  # fmt: skip
    rows = [[each[field] for field in fields] for each in summary]
    return Section(f"The paper's protocol: {name}", text, drawn, (header, rows))
