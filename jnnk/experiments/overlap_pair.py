"""Networks that differ in one thing of their training, measured at every depth."""

import pathlib
from functools import partial

from jnnk.data import Dataset
from jnnk.experiments.network import Network
from jnnk.experiments.overlap_settings import Settings, study_layers
from jnnk.experiments.runner import kept, run_cases
from jnnk.runs.progress import Progress
from jnnk.runs.study_records import MeasuredNetwork, PairLayer
from jnnk.training import make_evaluate, make_predict


def measure_pair(
    folder: pathlib.Path,
    networks: list[Network],
    dataset: Dataset,
    settings: Settings,
    progress: Progress,
) -> tuple[PairLayer, ...]:
    """A record a network and layer; networks that have their file in the folder are left out.

    The data set has the normalisation that the networks want.
    """

    def measure(network: Network) -> MeasuredNetwork:
        evaluate = make_evaluate(network.model, normalization=dataset.normalization)
        predict = make_predict(network.model, normalization=dataset.normalization)
        return MeasuredNetwork(
            test_accuracy=evaluate(network.variables, dataset.test_images, dataset.test_labels),
            layers=study_layers(predict, network.variables, dataset, settings),
        )

    found = run_cases(
        "matched pair",
        networks,
        lambda network: kept(
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
