"""``jnnk reproduce channel-pruning``: inner channels chosen by redundancy, and by what others use.

Public ResNets lose the same share of the inner channels of every block, by every criterion, so that
MACs are equal; accuracy is measured at once and, at some shares, after the same short fine-tuning
of the compacted network, over seeds. Every accuracy measured and every fine-tuning has its file, so
the command goes on where it was stopped.
"""

import itertools
import pathlib
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from jnnk.data import Dataset, first_images
from jnnk.experiments.network import Network
from jnnk.experiments.pruning import Accuracies
from jnnk.experiments.runner import grouped, kept, run_cases
from jnnk.jobs.channel_graphs import inner_graphs
from jnnk.jobs.fit import fit
from jnnk.jobs.latency import latency_gain
from jnnk.jobs.train import mirrors
from jnnk.pruning import (
    CHANNEL_CRITERIA,
    channel_masks,
    compact,
    conv_output_sizes,
    masks_from_layers,
    summarize,
)
from jnnk.pruning._channels import OF_GRAPHS
from jnnk.report.figures.levers import channel_pruning
from jnnk.report.output import save_study
from jnnk.runs.folder import require_settings
from jnnk.runs.progress import Progress, Silent
from jnnk.runs.records import spread
from jnnk.runs.study_records import ChannelCase, ChannelSummary, CompactCost
from jnnk.training import Model, make_evaluate, make_optimizer, make_train_step, start_state


class Settings(NamedTuple):
    """What is measured; two folders with the same settings hold the same numbers."""

    criteria: tuple[str, ...] = tuple(CHANNEL_CRITERIA)  # keys of `CHANNEL_CRITERIA`
    keep_rates: tuple[float, ...] = (0.9, 0.75, 0.5)  # shares of inner channels kept
    tuned_rates: tuple[float, ...] = (0.75, 0.5)  # shares at which the networks are fine-tuned too
    seeds: tuple[int, ...] = (0, 1, 2)  # of fine-tuning, and of `"random"` in both
    test_images: int = 2000  # first test images, for every accuracy
    graph_images: int = 600  # training images of the graphs
    neighbors: int = 15  # their candidates K
    tune_images: int = 2560  # training images of the fine-tuning
    tune_epochs: int = 1  # passes over them
    batch_size: int = 64  # images a step, and of the latency
    learning_rate: float = 0.01  # peak rate of SGD


def reproduce_channel_pruning(
    folder: pathlib.Path,
    networks: list[Network],
    dataset: Dataset,
    *,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> tuple[ChannelSummary, ...]:
    """Measures what is not measured yet; tables and figure are made of all.

    Args:
        folder: gets ``results.json``, ``summary`` as CSV, LaTeX and Markdown, the figure, and what
            is needed to go on.
        networks: the networks; their models tell ``convs()``.
        dataset: fine-tuned on its first training images, evaluated on its first test images.
        settings: those of the published figures by default.
        progress: shows how far it is.

    Returns:
        The summary: a record for each network, share and criterion.

    Raises:
        InputError: if the folder holds results made with other settings.
    """
    settings = settings or Settings()
    progress = progress or Silent()
    require_settings(folder, settings)
    dataset = first_images(dataset, train=settings.tune_images, test=settings.test_images)
    studied = [
        _StudiedNetwork(folder / network.name, network, dataset, settings, progress)
        for network in networks
    ]
    measured = run_cases(
        "reproduce channel-pruning",
        list(itertools.product(studied, settings.keep_rates, settings.criteria)),
        lambda case: case[0].records(keep_rate=case[1], criterion=case[2]),
        unit="case",
        progress=progress,
        show=lambda found: {"accuracy": found[-1].accuracy},
    )
    records = list(itertools.chain.from_iterable(measured))
    summary = summarize_cases(records)
    caption = "Accuracy with inner channels removed, at once and after the same fine-tuning."
    figure = ("channel_pruning", channel_pruning(summary))
    save_study(folder, records, summary, caption=caption, figure=figure)
    return summary


def summarize_cases(records: Sequence[ChannelCase]) -> tuple[ChannelSummary, ...]:
    """Means over seeds, a record for each network, share and criterion.

    Args:
        records: single measurements.
    """
    summary = []
    groups = grouped(records, lambda record: (record.network, record.keep_rate, record.criterion))
    for rows in groups.values():
        stages = grouped(rows, lambda row: row.stage)
        summary.append(
            ChannelSummary(
                network=rows[0].network,
                keep_rate=rows[0].keep_rate,
                criterion=rows[0].criterion,
                cost=rows[0].cost,
                accuracy_before=rows[0].accuracy_before,
                one_shot=spread([row.accuracy for row in stages.get("one-shot", ())]),
                fine_tuned=spread([row.accuracy for row in stages.get("fine-tuned", ())]),
            )
        )
    return tuple(summary)


class _StudiedNetwork:
    """One network: its graphs and programs are made once, when first needed."""

    def __init__(
        self,
        folder: pathlib.Path,
        network: Network,
        dataset: Dataset,
        settings: Settings,
        progress: Progress,
    ):
        self._folder, self._network, self._progress = folder, network, progress
        self._dataset, self._settings = dataset, settings
        evaluate = make_evaluate(network.model, normalization=dataset.normalization)
        path = folder / "accuracies.json"
        self._accuracies = Accuracies(path, network.variables, dataset, evaluate, progress)
        self._graphs: dict | None = None
        self._programs: dict[Model, tuple] = {}

    def records(self, *, criterion: str, keep_rate: float) -> tuple[ChannelCase, ...]:
        """All measurements of one criterion at one share, from their file where there is one."""
        path = self._folder / f"keep{keep_rate:g}" / f"{criterion}.json"
        measure = partial(self._measure, path.parent, criterion, keep_rate)
        return kept(path, measure, kind=tuple[ChannelCase, ...])

    def _measure(self, folder: pathlib.Path, criterion: str, keep_rate: float) -> list[ChannelCase]:
        """One-shot accuracy of every mask, and fine-tuned accuracy of every seed.

        Only a random choice has a mask of its own for every seed.
        """
        settings, images = self._settings, len(self._dataset.test_images)
        before = self._accuracies(None, images)
        records = []
        for seed in settings.seeds:
            is_new_mask = seed == settings.seeds[0] or criterion == "random"
            is_tuned = keep_rate in settings.tuned_rates
            if not (is_new_mask or is_tuned):
                continue
            masks = self._masks(criterion, keep_rate, seed)
            case = partial(
                ChannelCase, network=self._network.name, keep_rate=keep_rate, criterion=criterion,
                accuracy_before=before, cost=self._cost(keep_rate, masks), seed=seed,
            )  # fmt: skip
            if is_new_mask:
                records.append(case(stage="one-shot", accuracy=self._accuracies(masks, images)))
            if is_tuned:
                accuracy = self._tuned(folder / f"{criterion}-{seed}", masks, seed)
                records.append(case(stage="fine-tuned", accuracy=accuracy))
        return records

    def _masks(self, criterion: str, keep_rate: float, seed: int) -> Any:
        model, variables = self._network.model, self._network.variables
        if criterion in OF_GRAPHS and self._graphs is None:
            self._graphs = inner_graphs(
                model, variables, self._dataset,
                images=self._settings.graph_images, neighbors=self._settings.neighbors,
            )  # fmt: skip
        return channel_masks(
            variables["params"], model.convs(), criterion,
            keep_rate=keep_rate, graphs=self._graphs, key=jax.random.key(seed),
        )  # fmt: skip

    def _cost(self, keep_rate: float, masks: Any) -> CompactCost:
        """MACs and latency as shares of the whole network's; widths are the same for all masks."""

        def measure() -> CompactCost:
            model, variables = self._network.model, self._network.variables
            both = [(model, variables), compact(model, variables, masks)]
            shape = (self._settings.batch_size, *self._dataset.test_images.shape[1:])
            whole, small = (_macs(*each, shape) for each in both)
            times = latency_gain(
                model, variables, masks, self._dataset, batch_size=self._settings.batch_size
            )
            return CompactCost(macs=small / whole, latency=times.compacted / times.whole)

        return kept(self._folder / f"keep{keep_rate:g}" / "cost.json", measure, kind=CompactCost)

    def _tuned(self, folder: pathlib.Path, masks: Any, seed: int) -> float:
        """Accuracy of the compacted network after fine-tuning."""
        settings, dataset = self._settings, self._dataset
        model, variables = compact(self._network.model, self._network.variables, masks)
        optimizer, step, evaluate = self._program(model)
        state = fit(
            partial(start_state, optimizer, jax.random.key(seed), variables),
            step, dataset, evaluate=evaluate, epochs=settings.tune_epochs,
            batch_size=settings.batch_size, seed=seed, folder=folder,
            progress=self._progress.unseen(), description="",
        )  # fmt: skip
        return evaluate(state.variables, dataset.test_images, dataset.test_labels)

    def _program(self, model: Model) -> tuple:
        """Optimiser, step and evaluation, shared by the masks that leave the same widths."""
        if model not in self._programs:
            settings, dataset = self._settings, self._dataset
            num_steps = settings.tune_epochs * (len(dataset.train_images) // settings.batch_size)
            optimizer = make_optimizer(
                "sgd", learning_rate=settings.learning_rate, num_steps=num_steps, weight_decay=1e-4
            )
            normalization = dataset.normalization
            step = make_train_step(
                model, optimizer, normalization=normalization, flip=mirrors(dataset)
            )
            evaluate = make_evaluate(model, normalization=normalization)
            self._programs[model] = optimizer, step, evaluate
        return self._programs[model]


def _macs(model: Model, variables: dict, shape: tuple[int, ...]) -> int:
    sizes = conv_output_sizes(model, variables, jax.ShapeDtypeStruct(shape, np.float32))
    params = variables["params"]
    return summarize(params, masks_from_layers(params, {}), output_sizes=sizes).macs[0]
