"""What the studies share: cases that are measured once and kept, and measures of layers."""

import concurrent.futures
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from jnnk.data import Dataset
from jnnk.jobs.overlap import chosen_layers, measure_layer
from jnnk.network import capture, layer_shapes
from jnnk.runs.folder import read_json, write_json
from jnnk.runs.progress import Progress
from jnnk.runs.records import LayerMeasures
from jnnk.runs.settings import OverlapConfig

Case = TypeVar("Case")
Record = TypeVar("Record")


def kept(path: pathlib.Path, measure: Callable[[], Record], *, kind: Any) -> Record:
    """What a part's file holds, in the form of ``kind``; measured first where there is none.

    The file is whole or missing whenever the process dies, and what was just measured is read
    back from it, so that a command gives the same results in one go and in many.
    """
    if not path.exists():
        write_json(path, measure())
    return read_json(path, kind=kind)


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
    streams: int = 1,
) -> tuple[Record, ...]:
    """What every case measures, in their order; ``show`` tells numbers to stand beside the bar.

    As many cases as there are streams are measured side by side; Ctrl-C waits for these alone.
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
            task.advance(len(found), **show(found[-1]))
    return tuple(records)
