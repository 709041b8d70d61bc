"""Networks that differ in one thing of their training, compared at every depth."""

import pathlib
from functools import partial
from typing import Any

from jnnk.data import Dataset
from jnnk.experiments.network import Network
from jnnk.experiments.overlap_settings import Settings, measure_layers
from jnnk.experiments.parts import kept
from jnnk.runs.progress import Progress
from jnnk.training import make_evaluate, make_predict


def measure_pair(
    folder: pathlib.Path,
    networks: list[Network],
    dataset: Dataset,
    settings: Settings,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Measures every network, leaving out what is measured already.

    Args:
        folder: gets a file a network.
        networks: the networks.
        dataset: images, normalised as the networks want it.
        settings: what to measure.
        progress: shows how far it is.

    Returns:
        A record a network and layer: ``network``, its ``test_accuracy``, and what
        :func:`jnnk.experiments.overlap_settings.measure_layers` gives.
    """
    records = []
    with progress.task("matched pair", total=len(networks), unit="network") as task:
        for network in networks:
            measure = partial(_measure, network, dataset, settings)
            record = kept(folder / f"{network.name}.json", measure)
            shared = {"network": network.name, "test_accuracy": record["test_accuracy"]}
            records += [{**shared, **layer} for layer in record["layers"]]
            task.advance(test_accuracy=record["test_accuracy"])
    return records


def _measure(network: Network, dataset: Dataset, settings: Settings) -> dict[str, Any]:
    evaluate = make_evaluate(network.model, normalization=dataset.normalization)
    predict = make_predict(network.model, normalization=dataset.normalization)
    return {
        "test_accuracy": evaluate(network.variables, dataset.test_images, dataset.test_labels),
        "layers": measure_layers(predict, network.variables, dataset, settings),
    }
