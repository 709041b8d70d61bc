"""``jnnk study``: train, measure overlap, prune, report, each part as its own command does it."""

import pathlib

from jnnk.data import Dataset
from jnnk.jobs.overlap import overlap
from jnnk.jobs.prune import prune
from jnnk.jobs.report import report
from jnnk.jobs.train import train
from jnnk.runs.folder import Run
from jnnk.runs.progress import SILENT, Progress
from jnnk.runs.settings import OverlapConfig, PruneConfig
from jnnk.training import Model


def study(
    run: Run,
    model: Model,
    dataset: Dataset,
    *,
    overlap_config: OverlapConfig,
    prune_config: PruneConfig,
    variables: dict | None = None,
    progress: Progress = SILENT,
) -> pathlib.Path:
    """Does all that a run folder is for, from what it holds on; the path of the report.

    The network starts from ``variables`` if given, else at random.
    """
    train(run, model, dataset, variables=variables, progress=progress)
    overlap(run, model, dataset, overlap_config, progress=progress)
    prune(run, model, dataset, prune_config, progress=progress)
    return report(run, progress=progress)
