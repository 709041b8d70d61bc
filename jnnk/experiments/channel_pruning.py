"""``jnnk reproduce channel-pruning``: channels chosen by redundancy, and by what others use.

Public ResNets lose the same share of the inner channels of every block, by every criterion, so that
MACs are equal; and about as many MACs by a smaller share of all channels, the residual streams'
too. Accuracy is measured at once and, at some shares, after the same short fine-tuning under the
mask, over seeds. Every accuracy measured and every fine-tuning has its file, so the command goes on
where it was stopped.
"""

import functools
import itertools
import pathlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

import jax
import numpy as np

import jnnk.network
from jnnk import pruning
from jnnk.data import Dataset, first_images
from jnnk.experiments.pruning import Accuracies
from jnnk.experiments.runner import LoadedNetwork, run_cases
from jnnk.graphs import NNKGraph
from jnnk.jobs.criteria import channel_graphs
from jnnk.jobs.finetune import latency_gain
from jnnk.jobs.networks import logits_of, network_of
from jnnk.jobs.trainer import Recipe, Trainer
from jnnk.pruning._channels import OF_GRAPHS
from jnnk.report.figures.levers import channel_pruning
from jnnk.report.output import save_study
from jnnk.runs.json_files import read_or_measure
from jnnk.runs.part_settings import note_or_check_settings
from jnnk.runs.progress import SILENT, Progress
from jnnk.runs.records import grouped, spread
from jnnk.runs.study_records import ChannelCase, ChannelSummary, CompactCost
from jnnk.training import make_evaluate


class Settings(NamedTuple):
    """What is measured; two folders with the same settings hold the same numbers."""

    criteria: tuple[str, ...] = tuple(pruning.CHANNEL_CRITERIA)  # keys of `CHANNEL_CRITERIA`
    keep_rates: tuple[float, ...] = (0.9, 0.75, 0.5)  # shares of inner channels kept
    tuned_rates: tuple[float, ...] = (0.75, 0.5)  # shares at which the networks are fine-tuned too
    # Shares of all channels kept, residual streams included: MACs as of the tuned ones, tuned too.
    stream_rates: tuple[float, ...] = (0.85, 0.69)
    seeds: tuple[int, ...] = (0, 1, 2)  # of fine-tuning, and of `"random"` in both
    test_images: int = 2000  # first test images, for every accuracy
    graph_images: int = 600  # training images of the graphs
    neighbors: int = 15  # their candidates K
    tune_images: int = 2560  # training images of the fine-tuning
    tune_epochs: int = 1  # passes over them
    batch_size: int = 64  # images per step, and of the latency
    learning_rate: float = 0.01  # peak rate of SGD


class Removal(NamedTuple):
    """Which channels go."""

    keep_rate: float  # share kept, of each group
    streams: bool  # whether of residual streams too
    is_tuned: bool  # whether the networks are fine-tuned


def reproduce_channel_pruning(
    folder: pathlib.Path,
    networks: list[LoadedNetwork],
    dataset: Dataset,
    *,
    settings: Settings | None = None,
    progress: Progress = SILENT,
) -> tuple[ChannelSummary, ...]:
    """Measures what is not measured yet; tables and figure are made of all.

    The networks are fine-tuned on the first training images and
    evaluated on the first test images. The folder gets what `save_study` writes.

    Raises:
        InputError: if the folder holds results made with other settings.
    """
    settings = settings or Settings()
    note_or_check_settings(folder, settings)
    dataset = first_images(dataset, train=settings.tune_images, test=settings.test_images)
    studied = [
        _StudiedNetwork(folder / network.name, network, dataset, settings, progress)
        for network in networks
    ]
    measured = run_cases(
        "reproduce channel-pruning",
        list(itertools.product(studied, _removals(settings), settings.criteria)),
        _records_of,
        unit="case",
        progress=progress,
        show=lambda found: {"accuracy": found[-1].accuracy},
    )
    records = list(itertools.chain.from_iterable(measured))
    summary = summarize_cases(records)
    caption = "Accuracy with channels removed, at once and after the same fine-tuning."
    figure = ("channel_pruning", channel_pruning(summary))
    save_study(folder, records, summary, caption=caption, figure=figure)
    return summary


def _removals(settings: Settings) -> list[Removal]:
    """Inner channels at each share, then those of streams too."""
    inner = [Removal(rate, False, rate in settings.tuned_rates) for rate in settings.keep_rates]
    return inner + [Removal(rate, True, True) for rate in settings.stream_rates]


def _records_of(case: tuple["_StudiedNetwork", Removal, str]) -> tuple[ChannelCase, ...]:
    network, removal, criterion = case
    return network.records(removal, criterion)


def summarize_cases(records: Sequence[ChannelCase]) -> tuple[ChannelSummary, ...]:
    """Means over seeds, a record for each network, share and criterion."""
    summary = []
    groups = grouped(records, attrgetter("network", "streams", "keep_rate", "criterion"))
    for rows in groups.values():
        stages = grouped(rows, lambda row: row.stage)
        summary.append(
            ChannelSummary(
                network=rows[0].network,
                keep_rate=rows[0].keep_rate,
                streams=rows[0].streams,
                criterion=rows[0].criterion,
                cost=rows[0].cost,
                accuracy_before=rows[0].accuracy_before,
                one_shot=spread([row.accuracy for row in stages.get("one-shot", ())]),
                fine_tuned=spread([row.accuracy for row in stages.get("fine-tuned", ())]),
            )
        )
    return tuple(summary)


@dataclass
class _StudiedNetwork:
    """One network: its graphs and programs are made once, when first needed."""

    folder: pathlib.Path
    network: LoadedNetwork
    dataset: Dataset
    settings: Settings
    progress: Progress

    def __post_init__(self) -> None:
        _, model, variables = self.network
        evaluate = make_evaluate(model, normalization=self.dataset.normalization)
        path = self.folder / "accuracies.json"
        self._accuracies = Accuracies(path, variables, self.dataset, evaluate, self.progress)

    def records(self, removal: Removal, criterion: str) -> tuple[ChannelCase, ...]:
        """All measurements of one criterion at one share, from their file where there is one."""
        folder = self.folder / f"{'streams' if removal.streams else 'keep'}{removal.keep_rate:g}"
        path = folder / f"{criterion}.json"
        measure = functools.partial(self._measure, folder, criterion, removal)
        return read_or_measure(path, measure, kind=tuple[ChannelCase, ...])

    def _measure(
        self, folder: pathlib.Path, criterion: str, removal: Removal
    ) -> tuple[ChannelCase, ...]:
        """One-shot accuracy of every mask, and fine-tuned accuracy of every seed.

        Only a random choice has a mask of its own for every seed.
        """
        settings, images = self.settings, len(self.dataset.test_images)
        name, _, variables = self.network
        before = self._accuracies(None, images)
        records = []
        for seed in settings.seeds:
            is_new_mask = seed == settings.seeds[0] or criterion == "random"
            if not (is_new_mask or removal.is_tuned):
                continue
            masks = pruning.channel_masks(
                variables["params"], self._read_network, criterion,
                keep_rate=removal.keep_rate, streams=removal.streams,
                graphs=self._graphs if criterion in OF_GRAPHS else None, key=jax.random.key(seed),
            )  # fmt: skip
            case = functools.partial(
                ChannelCase, network=name, keep_rate=removal.keep_rate, streams=removal.streams,
                criterion=criterion, accuracy_before=before, cost=self._cost(folder, masks),
                seed=seed,
            )  # fmt: skip
            if is_new_mask:
                records.append(case(stage="one-shot", accuracy=self._accuracies(masks, images)))
            if removal.is_tuned:
                accuracy = self._tuned(folder / f"{criterion}-{seed}", masks, seed)
                records.append(case(stage="fine-tuned", accuracy=accuracy))
        return tuple(records)

    @functools.cached_property
    def _graphs(self) -> dict[str, NNKGraph]:
        _, model, variables = self.network
        options = {"images": self.settings.graph_images, "neighbors": self.settings.neighbors}
        groups = pruning.prunable_groups(self._read_network, streams=True).values()
        convs = tuple(dict.fromkeys(name for group in groups for name in group.producers))
        return channel_graphs(model, variables, self.dataset, convs, **options)

    @functools.cached_property
    def _read_network(self) -> jnnk.network.Network:
        return network_of(self.network.model, self.dataset)

    def _cost(self, folder: pathlib.Path, masks: Any) -> CompactCost:
        """MACs and latency as shares of the whole network's; widths are the same for all masks."""
        (_, model, variables), batch_size = self.network, self.settings.batch_size

        def measure() -> CompactCost:
            shape = (batch_size, *self.dataset.test_images.shape[1:])
            images = jax.ShapeDtypeStruct(shape, np.float32)
            small = jnnk.network.compact(logits_of(model), variables, masks, images)
            whole, small = (_macs(*each, images) for each in ((logits_of(model), variables), small))
            times = latency_gain(model, variables, masks, self.dataset, batch_size=batch_size)
            return CompactCost(macs=small / whole, latency=times.compacted / times.whole)

        return read_or_measure(folder / "cost.json", measure, kind=CompactCost)

    def _tuned(self, folder: pathlib.Path, masks: Any, seed: int) -> float:
        """Accuracy after fine-tuning under a mask."""
        _, accuracies = self._trainer.finetune(
            self.network.variables,
            masks,
            jax.random.key(seed),
            seed=seed,
            folder=folder,
            progress=self.progress.unseen(),
            description="",
        )
        return accuracies.accuracy_finetuned

    @functools.cached_property
    def _trainer(self) -> Trainer:
        epochs = self.settings.tune_epochs
        recipe = Recipe.of(self.settings, epochs=epochs, weight_decay=1e-4)
        return Trainer(self.network.model, self.dataset, recipe)


def _macs(apply_fn: Callable[..., Any], variables: Any, images: jax.ShapeDtypeStruct) -> int:
    """MACs of one image."""
    return sum(conv.macs for conv in jnnk.network.read(apply_fn, variables, images).convs)
