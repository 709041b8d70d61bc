"""The report's sections on the paper's protocol, and its tables in ``protocol/NAME/tables/``."""

import math
from collections.abc import Mapping
from typing import Any

from jnnk.report.figures import pruning as figures
from jnnk.report.output import draw, percent, save_table
from jnnk.report.page import Drawing, Section
from jnnk.runs.folder import Run
from jnnk.runs.records import ProtocolResult, TrialSummary

_HEADER = (
    "criterion", "pruned", "±", "accuracy pruned", "accuracy retrained", "±", "score", "±",
)  # fmt: skip


def protocol_sections(run: Run, protocols: Mapping[str, ProtocolResult]) -> list[Section]:
    """A section for every protocol that has run: accuracy, figures and a row per criterion.

    Args:
        run: the run folder.
        protocols: by name.
    """
    sections = []
    for name, result in protocols.items():
        _save_tables(run, name, result)
        rows = [_row(each) for each in result.summary]
        sections.append(
            Section(
                f"The paper's protocol: {name}",
                _text(result),
                _drawings(run, name, result),
                (_HEADER, rows),
            )
        )
    return sections


def _save_tables(run: Run, name: str, result: ProtocolResult) -> None:
    """Writes means, trials and the kernels by epoch as CSV and LaTeX."""
    folder = run.path / "protocol" / name / "tables"
    caption = f"Protocol {name}: mean and standard deviation over seeds."
    save_table(folder, "summary", result.summary, caption=caption)
    save_table(folder, "trials", result.trials, caption=f"Protocol {name}: every trial.")
    save_table(folder, "history", result.history, caption="Share below the threshold by epoch.")


def _text(result: ProtocolResult) -> str:
    """What was done, and what the criterion of the best score prunes at which accuracy."""
    settings, best = result.settings, max(result.summary, key=_score)
    start = "a random start" if settings.scratch else "the run's network"
    text = (
        f"{settings.epochs} epochs of training from {start} with an L1 penalty of "
        f"{settings.l1:g} on conv kernels, pruning of the kernels below "
        f"{settings.threshold:g} by each criterion, {settings.retrain_epochs} epochs of "
        f"retraining under the mask; {best.seeds} seeds. The best score, "
        f"(acc/acc0)(1 - params/params0), is {_score(best):.3f}: {best.criterion} prunes "
        f"{percent(best.pruned.mean)} and goes from {percent(best.accuracy_l1.mean)} to "
        f"{percent(best.accuracy_retrained.mean)}."
    )
    if result.in_paper:
        text += " The paper (arXiv 2102.02804) reports this network and protocol."
    return text


def _score(row: TrialSummary) -> float:
    """The mean score of a criterion; less than any other where it has none."""
    return -math.inf if row.score.mean is None else row.score.mean


def _drawings(run: Run, name: str, result: ProtocolResult) -> list[Drawing]:
    """Kernels pruned and accuracy by criterion, and the kernels during the L1 training."""
    return [
        draw(
            run,
            f"protocol_{name}",
            figures.protocol(result.summary),
            "Kernels pruned and accuracy by criterion; whiskers are standard deviations.",
            result.summary,
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


def _row(each: TrialSummary) -> list[Any]:
    """A criterion's cells of the table."""
    return [
        each.criterion,
        *(each.pruned.mean, each.pruned.std),
        each.accuracy_pruned.mean,
        *(each.accuracy_retrained.mean, each.accuracy_retrained.std),
        *(each.score.mean, each.score.std),
    ]
