"""``jnnk reproduce overlap``: what the channels of networks tell about how they generalise.

Three studies: small networks trained here over many settings, a pair of public networks trained
with and without a channel regulariser, and two public networks at every epoch of their training.
Every run, network and epoch is kept, so the command goes on where it was stopped.
"""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jnnk.data import Dataset
from jnnk.experiments.network import Network
from jnnk.experiments.overlap_epochs import Trajectory, measure_epochs
from jnnk.experiments.overlap_pair import measure_pair
from jnnk.experiments.overlap_runs import measure_runs
from jnnk.experiments.overlap_settings import Settings
from jnnk.measures import correlation
from jnnk.report.figures import overlap as figures
from jnnk.report.output import save_figure, save_markdown, save_table
from jnnk.runs.folder import require_settings, write_json
from jnnk.runs.progress import Progress, Silent
from jnnk.training import Model

Records = list[dict[str, Any]]
Controls = dict[str, Callable[[dict[str, Any]], Sequence[float]]]

_EPOCH_CONTROLS: Controls = {"": lambda r: (), "epoch": lambda r: (r["epoch"],)}
_RUN_CONTROLS: Controls = {
    "": lambda r: (),
    "log size": lambda r: (np.log(r["size"]),),
    "log size, dropout, decay": lambda r: (np.log(r["size"]), r["dropout"], r["weight_decay"]),
}


class Inputs(NamedTuple):
    """The networks and images of the three studies; normalisation comes with the data set.

    Attributes:
        create: makes the small network for a dropout rate.
        run_dataset: it is trained on two classes of these.
        pair: the networks compared at every depth.
        pair_dataset: images, normalised for them.
        trajectories: the networks followed through training.
        trajectory_dataset: images, normalised for them.
    """

    create: Callable[[float], Model]
    run_dataset: Dataset
    pair: list[Network]
    pair_dataset: Dataset
    trajectories: list[Trajectory]
    trajectory_dataset: Dataset


def reproduce_overlap(
    folder: pathlib.Path,
    inputs: Inputs,
    *,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> dict[str, Records]:
    """Measures what is not measured yet; tables and figures are written after every study.

    Args:
        folder: gets ``results.json``, the tables as ``.csv``, ``.tex`` and ``.md``, the figures,
            and the parts.
        inputs: networks and images.
        settings: the paper-sized ones by default.
        progress: shows how far it is.

    Returns:
        ``runs``, ``pair`` and ``epochs``, the records of the studies (see their modules), and
        ``run_correlations``, ``epoch_correlations`` (see :func:`correlations`), ``pair_means``
        and ``last_errors``.

    Raises:
        InputError: if the folder holds results made with other settings.
    """
    settings = settings or Settings()
    progress = progress or Silent()
    require_settings(folder, settings)
    results: dict[str, Records] = {}

    runs = measure_runs(folder / "runs", inputs.create, inputs.run_dataset, settings, progress)
    results["runs"] = runs
    results["run_correlations"] = correlations(
        {"all runs": runs}, ("test_accuracy", "gap"), _RUN_CONTROLS
    )
    save_figure(folder, "runs", figures.overlap_of_runs(runs))
    _write(folder, results, "run_correlations", "Last-layer overlap of networks trained here.")

    pair = measure_pair(folder / "pair", inputs.pair, inputs.pair_dataset, settings, progress)
    results["pair"] = pair
    results["pair_means"] = pair_means(pair)
    save_figure(folder, "pair", figures.pair_by_depth(pair))
    _write(folder, results, "pair_means", "Means over the layers of the matched pair.")

    epochs = measure_epochs(
        folder / "epochs", inputs.trajectories, inputs.trajectory_dataset, settings, progress
    )
    results["epochs"] = epochs
    results["epoch_correlations"] = correlations(
        by_network(epochs), ("test_error", "gap"), _EPOCH_CONTROLS
    )
    results["last_errors"] = last_errors(epochs)
    save_figure(folder, "errors", figures.errors_by_epoch(epochs))
    save_figure(folder, "layers", figures.layers_by_epoch(epochs))
    save_figure(folder, "epochs", figures.overlap_of_epochs(epochs))
    _write(folder, results, "epoch_correlations", "Last-layer overlap over epochs.")
    _write(folder, results, "last_errors", "Errors in percent after the last epoch.")
    return results


def correlations(
    groups: dict[str, Records], quantities: tuple[str, ...], controls: Controls
) -> Records:
    """Correlations of the last layer's overlap with other quantities, plain and partial.

    Args:
        groups: records by the name of their group.
        quantities: fields to correlate ``overlap`` with.
        controls: name to the numbers of a record that are held fixed; no numbers for none.

    Returns:
        A row a group, quantity, method and set of controls: ``group``, ``quantity``, ``method``,
        ``given``, and ``correlation`` with its 95 % limits ``lower`` and ``upper`` (see
        :func:`jnnk.measures.correlation`) and the ``number`` of records.
    """
    rows = []
    for group, records in groups.items():
        overlap = _numbers(records, "overlap")
        for quantity in quantities:
            other = _numbers(records, quantity)
            for method in ("pearson", "spearman"):
                for name, control in controls.items():
                    given = np.array([control(record) for record in records], float)
                    found = correlation(overlap, other, given=given, method=method)
                    rows.append(
                        {
                            "group": group,
                            "quantity": quantity,
                            "method": method,
                            "given": name,
                            "correlation": _known(found.value),
                            "lower": _known(found.lower),
                            "upper": _known(found.upper),
                            "number": found.number,
                        }
                    )
    return rows


def by_network(epochs: Records) -> dict[str, Records]:
    """The records of each network, and of all together as ``"pooled"``."""
    names = dict.fromkeys(record["network"] for record in epochs)
    groups = {name: [r for r in epochs if r["network"] == name] for name in names}
    return {**groups, "pooled": epochs}


def pair_means(pair: Records) -> Records:
    """Means over layers of each network of the pair.

    Args:
        pair: of :func:`jnnk.experiments.overlap_pair.measure_pair`.
    """
    fields = ("overlap", "overlap_by_chance", "redundancy", "channel_degree", "mle_dimension")
    rows = []
    for name in dict.fromkeys(record["network"] for record in pair):
        layers = [record for record in pair if record["network"] == name]
        means = {field: _known(float(np.nanmean(_numbers(layers, field)))) for field in fields}
        dead = sum(record["dead_channels"] for record in layers)
        accuracy = 100 * layers[0]["test_accuracy"]
        rows.append(
            {"network": name, "test accuracy (%)": accuracy, "dead channels": dead, **means}
        )
    return rows


def last_errors(epochs: Records) -> Records:
    """Errors in percent of each network after its last epoch.

    Args:
        epochs: of :func:`jnnk.experiments.overlap_epochs.measure_epochs`.
    """
    last = {record["network"]: record for record in epochs}
    fields = {
        "softmax": "test_error",
        "weighted kNN": "knn_error",
        "NNK": "nnk_error",
        "softmax, training": "train_error",
        "weighted kNN, leave-one-out": "knn_loo_error",
        "NNK, leave-one-out": "loo_error",
    }
    return [
        {"network": name} | {label: 100 * record[field] for label, field in fields.items()}
        for name, record in last.items()
    ]


def _numbers(records: Records, field: str) -> np.ndarray:
    """A field of all records, NaN where it is missing."""
    return np.array([record[field] for record in records], np.float64)


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _write(folder: pathlib.Path, results: dict[str, Records], table: str, caption: str) -> None:
    write_json(folder / "results.json", results)
    save_table(folder, table, results[table], caption=caption)
    save_markdown(folder, table, results[table])
