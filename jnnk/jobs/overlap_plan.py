"""``jnnk overlap --plan``: what the command would take, before it is run.

Bytes follow from the shapes (`jnnk.measures.plan_layer`). Seconds are measured on this machine, on
small parts of what would run: one batch of images, some queries of the smallest and the largest
dimension, one layer measured on few images, which takes hardly more than to compile.
"""

import functools
import math
import resource
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jnnk._core.timing import seconds_of
from jnnk.data import Dataset
from jnnk.jobs.overlap import (
    chosen_epochs,
    chosen_layers,
    epoch_variables,
    graph_options,
    measure_layer,
    measured_images,
    missing_layers,
)
from jnnk.measures import LayerPlan, Rates, plan_layer
from jnnk.measures._rates import pair_seconds, query_seconds
from jnnk.network import LayerActivations, capture, layer_shapes
from jnnk.network._capture import BATCH_SIZE, MEMORY_LIMIT
from jnnk.network._passes import split_passes
from jnnk.parallel._mesh import AXES
from jnnk.runs.folder import Run
from jnnk.runs.settings import OverlapConfig
from jnnk.training import Model, make_predict


class OverlapPlan(NamedTuple):
    """What ``jnnk overlap`` would take."""

    layers: tuple[LayerPlan, ...]  # a `LayerPlan` for each layer that some epoch has to measure
    num_images: int  # N
    num_devices: int  # that share the work
    # by part: "network", "graphs and overlap", "compilation"; figures come on top
    seconds: dict[str, float]
    device_bytes: int  # at the largest moment, on the device that holds most
    host_bytes: int  # of the whole process, at the largest moment; includes the devices' on a CPU


def plan_overlap(
    run: Run, model: Model, dataset: Dataset, config: OverlapConfig, *, mesh: Mesh | None = None
) -> OverlapPlan:
    """Plans what is not measured yet of `overlap` of the same arguments; writes nothing.

    Accelerators of a mesh are taken to be as many times faster as there are; devices of one CPU
    share its cores.

    Raises:
        InputError: for epochs that are not kept or layers that do not exist.
    """
    images, labels = measured_images(run, dataset, config)
    num_images, num_classes = len(images), len(dataset.class_names)
    predict = make_predict(model, normalization=dataset.normalization)
    epochs = chosen_epochs(run, config)
    variables = epoch_variables(run, model, dataset, epochs[-1])
    shapes = layer_shapes(predict, variables, images, site="reported")
    layers = list(chosen_layers(shapes, config.layers))
    todo = [missing_layers(run, epoch, layers) for epoch in epochs]
    missing = [name for name in layers if any(name in names for names in todo)]
    chosen = {name: (h, w, c) for name, (h, w, c) in shapes.items() if name in missing}
    num_devices = 1 if mesh is None else mesh.size
    on_cpu = jax.default_backend() == "cpu"

    def measure(captured: LayerActivations) -> None:
        values, few = captured.values, labels[: len(captured.values)]
        measure_layer(values, few, num_classes=num_classes, config=config, mesh=mesh)

    rates, resident = _measure(predict, variables, images, chosen, config, measure)
    plan = functools.partial(
        plan_layer,
        num_images=num_images,
        num_neighbors=config.neighbors,
        num_classes=num_classes,
        rates=rates,
        shards=None if mesh is None else tuple(mesh.shape.get(axis, 1) for axis in AXES),
        speedup=1.0 if on_cpu else float(num_devices),
    )
    plans = {name: plan(name, shape) for name, shape in chosen.items()}
    passes = [_passes(names, shapes, num_images) for names in todo]
    # One pass more, of its own, for the channels whose pictures are kept.
    num_passes = sum(map(len, passes)) + 1
    num_programs = max(map(len, passes), default=0) + 1
    stored = max((size for sizes in passes for size in sizes), default=0)
    device_bytes = max((layer.peak for layer in plans.values()), default=0)
    return OverlapPlan(
        layers=tuple(plans.values()),
        num_images=num_images,
        num_devices=num_devices,
        seconds={
            "network": rates.image * num_images * num_passes,
            "graphs and overlap": sum(plans[name].seconds for names in todo for name in names),
            "compilation": rates.network * num_programs + rates.layer * len({*chosen.values()}),
        },
        device_bytes=device_bytes,
        host_bytes=resident + stored + (num_devices * device_bytes if on_cpu else 0),
    )


def _passes(names: list[str], shapes: dict[str, tuple], num_images: int) -> list[int]:
    """Bytes of activations stored by each pass of the images through the network."""
    sizes = [4 * num_images * math.prod(shapes[name]) for name in names]
    passes, start = [], 0
    for count in split_passes(sizes, memory_limit=MEMORY_LIMIT):
        passes.append(sum(sizes[start : start + count]))
        start += count
    return passes


def _measure(
    predict: Callable,
    variables: dict,
    images: np.ndarray,
    shapes: dict[str, tuple[int, int, int]],
    config: OverlapConfig,
    measure: Callable[[LayerActivations], None],
) -> tuple[Rates, int]:
    """What this machine takes, and the bytes that the process holds with hardly any data."""
    if not shapes:
        return Rates(0, 0, 0, 0, 0, 0), _resident()
    batch = images[:BATCH_SIZE]

    def answers() -> None:
        list(capture(predict, variables, batch, layers=list(shapes), site="reported"))

    network, again = seconds_of(answers), seconds_of(answers)
    few = images[: config.neighbors + 2]
    (captured,) = capture(predict, variables, few, layers=[next(iter(shapes))], site="reported")
    compiling, measuring = (seconds_of(lambda: measure(captured)) for _ in range(2))
    resident = _resident()
    dims = [height * width for height, width, _ in shapes.values()]
    dims += [math.prod(shape) for shape in shapes.values()]
    query, query_dimension = query_seconds(len(images), dims, **graph_options(config))
    rates = Rates(
        query=query,
        query_dimension=query_dimension,
        pair=pair_seconds(
            max(shape[-1] for shape in shapes.values()), config.neighbors, num_images=len(images)
        ),
        image=again / len(batch),
        network=max(network - again, 0.0),
        layer=max(compiling - measuring, 0.0),
    )
    return rates, resident


def _resident() -> int:
    """Bytes of this process at its largest so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
