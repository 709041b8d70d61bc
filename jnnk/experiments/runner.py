"""What the studies share: networks, cases in their order, and measures of layers."""

import concurrent.futures
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from flax.linen import Module

from jnnk.data import Dataset
from jnnk.jobs.overlap import chosen_layers, measure_layer
from jnnk.network import capture, layer_shapes
from jnnk.runs.progress import Progress
from jnnk.runs.records import LayerMeasures
from jnnk.runs.settings import OverlapConfig

Case = TypeVar("Case")
Record = TypeVar("Record")


class LoadedNetwork(NamedTuple):
    """A trained network that a study measures."""

    name: str  # shown in tables, and the name of its folder
    model: Module  # the Flax module
    variables: dict  # its weights


def measure_layers(
    predict: Callable,
    variables: dict,
    dataset: Dataset,
    config: OverlapConfig,
    *,
    layers: tuple[str, ...] = ("*",),
    **pooling: Any,
) -> dict[str, LayerMeasures]:
    """What ``jnnk overlap`` measures of the layers that match, on all training images of a set."""
    images, labels = dataset.train_images, dataset.train_labels
    names = list(chosen_layers(layer_shapes(predict, variables, images, site="reported"), layers))
    options = {"num_classes": len(dataset.class_names), "config": config}
    return {
        captured.name: measure_layer(captured.values, labels, **options)[0]
        for captured in capture(
            predict, variables, images, layers=names, site="reported", **pooling
        )
    }


def run_cases(
    description: str,
    cases: Sequence[Case],
    measure: Callable[[Case], Record],
    *,
    unit: str,
    progress: Progress,
    show: Callable[[Record], dict[str, float]],
    keep: Callable[[Sequence[Record]], None] = lambda records: None,
    streams: int = 1,
) -> tuple[Record, ...]:
    """What every case measures, in their order; ``show`` tells numbers to stand beside the bar.

    As many cases as there are streams are measured side by side; Ctrl-C waits for these alone.
    After them ``keep`` gets all records so far.
    """
    records: list[Record] = []
    with progress.task(description, total=len(cases), unit=unit) as task:
        for start in range(0, len(cases), streams):
            some = cases[start : start + streams]
            if streams == 1:
                found = [measure(case) for case in some]
            else:
                with concurrent.futures.ThreadPoolExecutor(streams) as pool:
                    found = list(pool.map(measure, some))
            records += found
            keep(records)
            task.advance(len(found), **show(found[-1]))
    return tuple(records)
