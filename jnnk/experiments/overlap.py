"""``jnnk reproduce overlap``: what the channels of networks tell about how they generalise.

Three studies: small networks trained here over many settings, a pair of public networks trained
with and without a channel regulariser, and two public networks at every epoch of their training.
Every run, network and epoch is kept, so the command goes on where it was stopped.
"""

import itertools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import NamedTuple, TypeVar

import numpy as np
from flax.linen import Module

from jnnk.data import Dataset
from jnnk.experiments.overlap_epochs import Trajectory, measure_epochs
from jnnk.experiments.overlap_runs import measure_runs
from jnnk.experiments.overlap_settings import Settings, study_layers
from jnnk.experiments.runner import LoadedNetwork, run_cases
from jnnk.measures import correlation
from jnnk.report.figures import overlap as figures
from jnnk.report.output import save_figure, save_markdown, save_table
from jnnk.report.tables import Records
from jnnk.runs.json_files import read_or_measure, write_json
from jnnk.runs.part_settings import note_or_check_settings
from jnnk.runs.progress import SILENT, Progress
from jnnk.runs.records import LayerMeasures, grouped
from jnnk.runs.study_records import (
    CorrelationRow,
    LastErrors,
    MeasuredNetwork,
    NetworkEpoch,
    OverlapStudy,
    PairLayer,
    PairMeans,
    TrainedNetwork,
)
from jnnk.training import make_evaluate, make_predict

Record = TypeVar("Record")
Number = Callable[[Record], float | None]
Controls = Mapping[str, Callable[[Record], Sequence[float]]]

_EPOCH_CONTROLS: Controls[NetworkEpoch] = {"": lambda r: (), "epoch": lambda r: (r.epoch,)}
_EPOCH_QUANTITIES: Mapping[str, Number[NetworkEpoch]] = {
    "test_error": attrgetter("errors.test_error"), "gap": attrgetter("errors.gap")
}  # fmt: skip
_RUN_CONTROLS: Controls[TrainedNetwork] = {
    "": lambda r: (),
    "log size": lambda r: (np.log(r.size),),
    "log size, dropout, decay": lambda r: (np.log(r.size), r.dropout, r.weight_decay),
}
_RUN_QUANTITIES: Mapping[str, Number[TrainedNetwork]] = {
    "test_accuracy": attrgetter("test_accuracy"), "gap": attrgetter("gap")
}  # fmt: skip


class Inputs(NamedTuple):
    """The networks and images of the three studies; normalisation comes with the data set."""

    create: Callable[[float], Module]  # makes the small network for a dropout rate
    run_dataset: Dataset  # it is trained on two classes of these
    pair: list[LoadedNetwork]  # the networks compared at every depth
    pair_dataset: Dataset  # images, normalised for them
    trajectories: list[Trajectory]  # the networks followed through training
    trajectory_dataset: Dataset  # images, normalised for them


def reproduce_overlap(
    folder: pathlib.Path,
    inputs: Inputs,
    *,
    settings: Settings | None = None,
    progress: Progress = SILENT,
) -> OverlapStudy:
    """Measures what is not measured yet; tables and figures are written after every study.

    The folder gets ``results.json``, the tables as ``.csv``, ``.tex`` and ``.md``, the figures, and
    the parts.

    Raises:
        InputError: if the folder holds results made with other settings.
    """
    settings = settings or Settings()
    note_or_check_settings(folder, settings)

    def write(results: OverlapStudy, name: str, table: Records, caption: str) -> None:
        write_json(folder / "results.json", results)
        save_table(folder, name, table, caption=caption)
        save_markdown(folder, name, table)

    runs = measure_runs(folder / "runs", inputs.create, inputs.run_dataset, settings, progress)
    by_runs = correlations(
        {"all runs": runs}, attrgetter("measures.overlap.mean"), _RUN_QUANTITIES, _RUN_CONTROLS
    )
    results = OverlapStudy(runs=runs, run_correlations=by_runs)
    save_figure(folder, "runs", figures.overlap_of_runs(runs))
    write(results, "run_correlations", by_runs, "Last-layer overlap of networks trained here.")

    pair = measure_pair(folder / "pair", inputs.pair, inputs.pair_dataset, settings, progress)
    means = pair_means(pair)
    results = replace(results, pair=pair, pair_means=means)
    save_figure(folder, "pair", figures.pair_by_depth(pair))
    write(results, "pair_means", means, "Means over the layers of the matched pair.")

    epochs = measure_epochs(
        folder / "epochs", inputs.trajectories, inputs.trajectory_dataset, settings, progress
    )
    by_epochs = correlations(
        by_network(epochs), attrgetter("errors.overlap"), _EPOCH_QUANTITIES, _EPOCH_CONTROLS
    )
    last = last_errors(epochs)
    results = replace(results, epochs=epochs, epoch_correlations=by_epochs, last_errors=last)
    save_figure(folder, "errors", figures.errors_by_epoch(epochs))
    save_figure(folder, "layers", figures.layers_by_epoch(epochs))
    save_figure(folder, "epochs", figures.overlap_of_epochs(epochs))
    write(results, "epoch_correlations", by_epochs, "Last-layer overlap over epochs.")
    write(results, "last_errors", last, "Errors after the last epoch.")
    return results


def measure_pair(
    folder: pathlib.Path,
    networks: list[LoadedNetwork],
    dataset: Dataset,
    settings: Settings,
    progress: Progress,
) -> tuple[PairLayer, ...]:
    """A record per network and layer; networks that have their file in the folder are left out.

    The data set has the normalisation that the networks want.
    """

    def measure(network: LoadedNetwork) -> MeasuredNetwork:
        evaluate = make_evaluate(network.model, normalization=dataset.normalization)
        predict = make_predict(network.model, normalization=dataset.normalization)
        return MeasuredNetwork(
            test_accuracy=evaluate(network.variables, dataset.test_images, dataset.test_labels),
            layers=study_layers(predict, network.variables, dataset, settings),
        )

    found = run_cases(
        "matched pair",
        networks,
        lambda network: read_or_measure(
            folder / f"{network.name}.json", partial(measure, network), kind=MeasuredNetwork
        ),
        unit="network",
        progress=progress,
        show=lambda record: {"test_accuracy": record.test_accuracy},
    )
    return tuple(
        PairLayer(network=network.name, test_accuracy=record.test_accuracy, layer=layer)
        for network, record in zip(networks, found, strict=True)
        for layer in record.layers
    )


def correlations(
    groups: Mapping[str, Sequence[Record]],
    overlap: Number[Record],
    quantities: Mapping[str, Number[Record]],
    controls: Controls[Record],
) -> tuple[CorrelationRow, ...]:
    """Correlations of the last layer's overlap with other quantities, plain and partial.

    Groups of records, quantities, and controls, which are the numbers of a record that are held
    fixed, have names; no numbers stand for no control.

    Returns:
        A row per group, quantity, method and set of controls; see `jnnk.measures.correlation`.
    """
    rows = []
    for (group, records), (quantity, of_record), method, (name, control) in itertools.product(
        groups.items(), quantities.items(), ("pearson", "spearman"), controls.items()
    ):
        given = np.array([control(record) for record in records], float)
        values = (_numbers(records, overlap), _numbers(records, of_record))
        found = correlation(*values, given=given, method=method)
        rows.append(
            CorrelationRow(
                group=group,
                quantity=quantity,
                method=method,
                given=name,
                correlation=_known(found.value),
                lower=_known(found.lower),
                upper=_known(found.upper),
                number=found.number,
            )
        )
    return tuple(rows)


def by_network(epochs: Sequence[NetworkEpoch]) -> dict[str, Sequence[NetworkEpoch]]:
    """The records of each network, and of all together as ``"pooled"``."""
    return {**grouped(epochs, lambda record: record.network), "pooled": epochs}


def pair_means(pair: Sequence[PairLayer]) -> tuple[PairMeans, ...]:
    """Means over layers of each network of the pair."""
    rows = []
    for network, layers in grouped(pair, lambda record: record.network).items():
        found = [record.layer.measures for record in layers]

        def mean(name: str, found: Sequence[LayerMeasures] = found) -> float | None:
            return _known(float(np.nanmean(_numbers(found, attrgetter(name)))))

        rows.append(
            PairMeans(
                network=network,
                test_accuracy=layers[0].test_accuracy,
                dead_channels=sum(each.dead_channels for each in found),
                overlap=mean("overlap.mean"),
                overlap_by_chance=mean("overlap_by_chance"),
                redundancy=mean("redundancy.mean"),
                channel_degree=mean("channel_degree.mean"),
                mle_dimension=mean("mle_dimension.mean"),
            )
        )
    return tuple(rows)


def last_errors(epochs: Sequence[NetworkEpoch]) -> tuple[LastErrors, ...]:
    """The errors of each network after its last epoch."""
    last = {record.network: record.errors for record in epochs}
    return tuple(
        LastErrors(
            network=network,
            test_error=errors.test_error,
            knn_error=errors.knn_error,
            nnk_error=errors.nnk_error,
            train_error=errors.train_error,
            knn_loo_error=errors.knn_loo_error,
            loo_error=errors.loo_error,
        )
        for network, errors in last.items()
    )


def _numbers(records: Sequence[Record], number: Number[Record]) -> np.ndarray:
    """A number of every record, NaN where it is missing."""
    return np.array([number(record) for record in records], np.float64)


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None
