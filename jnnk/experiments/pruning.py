"""``jnnk reproduce pruning``: how many kernels every criterion can prune from public networks.

For each network, as published and after a short L1 fine-tune, and for each criterion: the largest
share of all kernels that can go, ranked over the whole network, before more than half a point of
test accuracy is lost. Every accuracy measured is kept, so the command goes on where it was stopped.
"""

import hashlib
import itertools
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import numpy as np

from jnnk.data import Dataset
from jnnk.experiments.bisection import last_true
from jnnk.experiments.runner import LoadedNetwork, run_cases
from jnnk.files.schema import TableRow
from jnnk.jobs.fit import Evaluate
from jnnk.jobs.trainer import Recipe, Trainer, masked
from jnnk.pruning import CRITERIA, make_masks, pruning_score, summarize
from jnnk.pruning._conv_leaves import conv_kernels
from jnnk.report.figures.pruning import prunable_shares
from jnnk.report.output import save_figure, save_markdown, save_table
from jnnk.runs.json_files import read_json, write_json
from jnnk.runs.part_settings import note_or_check_settings
from jnnk.runs.progress import SILENT, Progress
from jnnk.runs.records import grouped
from jnnk.runs.study_records import PrunableShare, PruningCase
from jnnk.training import make_evaluate, start_state

STARTS = ("one-shot", "L1 fine-tune")


class Settings(NamedTuple):
    """What is measured; two folders with the same settings hold the same numbers."""

    criteria: tuple[str, ...] = tuple(CRITERIA)  # names in `CRITERIA`
    # accuracy that may be lost, in percentage points of all test images, against the network that
    # is pruned (the fine-tuned one after a fine-tune)
    tolerance: float = 0.5
    # shares are `(step / steps) ** 2`, finer where criteria that lose accuracy at once differ
    steps: int = 100
    bracket_images: int = 2000  # first test images, on which the search begins
    epochs: int = 1  # of the L1 fine-tune
    batch_size: int = 128  # images per step
    learning_rate: float = 0.05  # peak rate of SGD, falling to 0 by a cosine
    l1: float = 2e-4  # strength of the penalty on conv kernels
    seed: int = 0  # of the fine-tune and of `random`


def reproduce_pruning(
    folder: pathlib.Path,
    networks: list[LoadedNetwork],
    dataset: Dataset,
    *,
    settings: Settings | None = None,
    progress: Progress = SILENT,
) -> tuple[PruningCase, ...]:
    """Measures what is not measured yet; the tables are written anew after every number.

    The folder gets ``results.json``, ``table.csv``, ``.tex`` and ``.md``, the figure, and what is
    needed to go on.

    Raises:
        InputError: if the folder holds results made with other settings.
    """
    settings = settings or Settings()
    note_or_check_settings(folder, settings)
    starts = itertools.product(STARTS, networks)
    studied = [_Start(folder, *start, dataset, settings, progress) for start in starts]
    records = run_cases(
        "reproduce pruning",
        list(itertools.product(studied, settings.criteria)),
        lambda case: case[0].record(case[1]),
        unit="criterion",
        progress=progress,
        show=lambda record: {"share": record.prunable.share},
        keep=partial(_write, folder),
    )
    save_figure(folder, "prunable_shares", prunable_shares(records))
    return records


@dataclass
class Accuracies:
    """Accuracies of one network under masks on a set's test images, each measured once and kept."""

    path: pathlib.Path  # the file that keeps them
    variables: dict  # the network's
    dataset: Dataset  # its test images are used
    evaluate: Evaluate  # of the network
    progress: Progress  # may end the command before one is measured

    def __post_init__(self) -> None:
        self.num_images = len(self.dataset.test_images)
        self._known: dict[str, float] = (
            read_json(self.path, kind=dict[str, float]) if self.path.exists() else {}
        )

    def __call__(self, masks: Any | None, num_images: int) -> float:
        """Accuracy in [0, 1] on the first test images, pruned by ``masks`` (None: whole)."""
        key = f"{'whole' if masks is None else _digest(masks)} {num_images}"
        if key not in self._known:
            self.progress.check()
            variables = self.variables if masks is None else masked(self.variables, masks)
            images, labels = self.dataset.test_images, self.dataset.test_labels
            self._known[key] = self.evaluate(variables, images[:num_images], labels[:num_images])
            write_json(self.path, self._known)
        return self._known[key]


def measure(accuracies: Accuracies, criterion: str, settings: Settings) -> PrunableShare:
    """The largest share one criterion can prune, searched on few images and settled on all.

    The share is a turning point: it keeps the accuracy within the tolerance and the next larger
    one of the grid does not. Accuracy is not quite monotone, so a larger share further
    on may by chance be within it again.
    """
    params, every = accuracies.variables["params"], accuracies.num_images
    key = jax.random.key(settings.seed) if criterion == "random" else None

    def share(step: int) -> float:
        return (step / settings.steps) ** 2

    def masks(step: int) -> Any:
        return make_masks(params, criterion=criterion, keep_rate=1 - share(step), key=key)

    def turning_point(num_images: int, guess: int | None = None) -> int:
        def is_within(step: int) -> bool:
            lost = accuracies(None, num_images) - accuracies(masks(step), num_images)
            return 100 * lost <= settings.tolerance + 1e-9

        return last_true(is_within, low=0, high=settings.steps, guess=guess)

    step = turning_point(every, turning_point(min(settings.bracket_images, every)))
    before, accuracy = accuracies(None, every), accuracies(masks(step), every)
    whole, kept = summarize(params, masks(step)).params
    return PrunableShare(
        criterion=criterion,
        share=share(step),
        accuracy=accuracy,
        accuracy_before=before,
        next_share=share(step + 1),
        next_accuracy=accuracies(masks(step + 1), every),
        params=kept / whole,
        score=pruning_score(accuracy, before, kept, whole),
    )


def summary_table(records: Sequence[PruningCase]) -> list[TableRow]:
    """A row per criterion, a column per network and start: the share pruned in percent."""
    columns = grouped(records, lambda record: f"{record.network}, {record.start} (%)")
    shares = {
        name: {row.prunable.criterion: 100 * row.prunable.share for row in rows}
        for name, rows in columns.items()
    }
    return [
        {"criterion": criterion} | {name: column.get(criterion) for name, column in shares.items()}
        for criterion in dict.fromkeys(record.prunable.criterion for record in records)
    ]


@dataclass
class _Start:
    """A network as published or fine-tuned, which it is when it is first needed."""

    folder: pathlib.Path
    start: str
    network: LoadedNetwork
    dataset: Dataset
    settings: Settings
    progress: Progress

    def record(self, criterion: str) -> PruningCase:
        prunable = measure(self._accuracies, criterion, self.settings)
        return PruningCase(network=self.network.name, start=self.start, prunable=prunable)

    @cached_property
    def _accuracies(self) -> Accuracies:
        part = self.folder / self.network.name / self.start.replace(" ", "-")
        evaluate = make_evaluate(self.network.model, normalization=self.dataset.normalization)
        variables = self.network.variables
        if self.start == "L1 fine-tune":
            variables = self._finetuned(part, evaluate)
        return Accuracies(
            part / "accuracies.json", variables, self.dataset, evaluate, self.progress
        )

    def _finetuned(self, folder: pathlib.Path, evaluate: Evaluate) -> dict:
        """The network's variables after a training with the L1 penalty."""
        (name, model, variables), seed = self.network, self.settings.seed
        trainer = Trainer(model, self.dataset, Recipe.of(self.settings), evaluate=evaluate)
        return trainer.fit(
            partial(start_state, trainer.optimizer, jax.random.key(seed), variables),
            seed=seed,
            folder=folder,
            progress=self.progress,
            description=f"L1 fine-tune of {name}",
        ).variables


def _digest(masks: Any) -> str:
    layers = [np.packbits(np.asarray(leaf) != 0) for leaf in conv_kernels(masks).values()]
    return hashlib.sha256(np.concatenate(layers).tobytes()).hexdigest()[:16]


def _write(folder: pathlib.Path, records: Sequence[PruningCase]) -> None:
    caption = "Largest share of kernels pruned with at most half a point of accuracy lost."
    write_json(folder / "results.json", records)
    save_table(folder, "results", records, caption=caption)
    table = summary_table(records)
    save_table(folder, "table", table, caption=caption)
    save_markdown(folder, "table", table)
