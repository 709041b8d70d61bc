"""``jnnk overlap``: channel-wise NNK graphs of a run's layers and epochs, and what they tell."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jax.sharding import Mesh

from jnnk import graphs
from jnnk._core.errors import InputError
from jnnk._core.patterns import matching
from jnnk.data import Dataset, epoch_order
from jnnk.graphs._layer_graphs import GraphOptions, layer_graphs
from jnnk.jobs.channel_pictures import check_channels, default_channels, keep_pictures
from jnnk.jobs.networks import network_layers
from jnnk.jobs.train import kept_epochs, load_state, random_state
from jnnk.measures import measure_graphs
from jnnk.network import capture
from jnnk.parallel import replicate
from jnnk.parallel._mesh import shared_apply
from jnnk.report.top_images import keep_images, keep_top_rows
from jnnk.runs.contents import train_config
from jnnk.runs.divergence import refuse_diverged
from jnnk.runs.folder import Run
from jnnk.runs.json_files import read_json, write_json
from jnnk.runs.overlap_files import (
    RANDOM,
    Epoch,
    LayerArrays,
    layer_file,
    layer_measures,
    write_npz,
)
from jnnk.runs.part_settings import note_or_check_settings
from jnnk.runs.progress import SILENT, Progress
from jnnk.runs.records import LayerMeasures, LayerRecord
from jnnk.runs.settings import OverlapConfig
from jnnk.training import Model, make_predict

_SIMILARITIES = {"gaussian": graphs.gaussian(), "cosine": graphs.cosine()}


def overlap(
    run: Run,
    model: Model,
    dataset: Dataset,
    config: OverlapConfig,
    *,
    channels: Mapping[str, Sequence[int]] | None = None,
    progress: Progress = SILENT,
    mesh: Mesh | None = None,
) -> list[LayerRecord]:
    """Measures every chosen layer at every chosen epoch, leaving out what is measured already.

    A network with random weights is measured first, as the control: the run's own start, or, where
    it did not start from one (given weights) or did not keep it, a start made from the run's seed.

    Pictures are kept of ``channels`` (layer name to channels) at the last chosen epoch; by default
    of the most and the least overlapping pair of the last chosen layer. The devices of a mesh share
    the images of a batch and the queries over its axis ``"data"`` and the channels over
    ``"channel"``, as from :func:`jnnk.parallel.parse_mesh`; with several processes it must be
    given. The results are the same on any, to rounding.

    Raises:
        InputError: for epochs that are not kept, layers or channels that do not exist, or a folder
            that holds measurements made with other settings.
    """
    epochs, layers = check_overlap(run, model, dataset, config, channels=channels)
    note_or_check_settings(run.path / "overlap", config, free=("layers", "at_epochs"))
    images, labels = measured_images(run, dataset, config)
    # The settings of earlier versions may have more neighbours than there are other images.
    config = config._replace(neighbors=min(config.neighbors, len(images) - 1))
    num_classes = len(dataset.class_names)
    predict = make_predict(model, normalization=dataset.normalization)
    if mesh is not None:
        predict = shared_apply(predict, mesh)

    def variables_at(epoch: Epoch) -> dict:
        variables = epoch_variables(run, model, dataset, epoch)
        return variables if mesh is None else replicate(variables, mesh)

    for epoch in epochs:
        todo = missing_layers(run, epoch, layers)
        name = "random weights" if epoch == RANDOM else f"epoch {epoch}"
        with progress.task(f"overlap, {name}", total=len(layers), unit="layer") as task:
            task.advance(len(layers) - len(todo))
            if not todo:
                continue
            for layer, values, *_ in capture(
                predict, variables_at(epoch), images, layers=todo, site="reported"
            ):
                measures, arrays = measure_layer(
                    values, labels, num_classes=num_classes, config=config, mesh=mesh
                )
                write_npz(layer_file(run.path, epoch, layer, "npz"), arrays)
                keep_top_rows(run, epoch, layer, values)
                record = LayerRecord(
                    epoch=epoch, depth=layers[layer], layer=layer, measures=measures
                )
                write_json(layer_file(run.path, epoch, layer, "json"), record)
                task.advance(overlap=measures.overlap.mean or 0.0)
    records = [
        read_json(layer_file(run.path, epoch, layer, "json"), kind=LayerRecord)
        for epoch in epochs
        for layer in layers
    ]
    progress.check()
    last = epochs[-1]
    keep_images(run, last, images)
    if channels is None:
        channels = default_channels(run, records[-1])
    options = graph_options(config)
    keep_pictures(run, last, channels, predict, variables_at(last), images, options=options)
    return records


def check_overlap(
    run: Run,
    model: Model,
    dataset: Dataset,
    config: OverlapConfig,
    *,
    channels: Mapping[str, Sequence[int]] | None = None,
) -> tuple[list[Epoch], dict[str, int]]:
    """The epochs and layers that `overlap` of these arguments measures; runs nothing."""
    epochs = chosen_epochs(run, config)
    shapes = network_layers(model, dataset)
    layers = chosen_layers(shapes, config.layers)
    check_channels(channels or {}, {name: shapes[name] for name in layers})
    return epochs, layers


def measured_images(
    run: Run, dataset: Dataset, config: OverlapConfig
) -> tuple[np.ndarray, np.ndarray]:
    """The training images measured, (N, H, W, C) uint8, drawn by the seed, and their labels."""
    rows = epoch_order(len(dataset.train_images), seed=train_config(run).seed, epoch=0)
    rows = np.sort(rows[: config.images])
    return dataset.train_images[rows], dataset.train_labels[rows]


def missing_layers(run: Run, epoch: Epoch, layers: Iterable[str]) -> list[str]:
    """The layers, of those named, that are not measured at an epoch yet."""
    return [
        name
        for name in layers
        if not all(layer_file(run.path, epoch, name, kind).exists() for kind in ("json", "npz"))
    ]


def chosen_layers(
    names: Iterable[str], patterns: tuple[str, ...], *, option: str = "--layers"
) -> dict[str, int]:
    """The layers that match any of the patterns, each with its place among all; else refused."""
    depths = {name: depth for depth, name in enumerate(names)}
    if not depths:
        raise InputError("the network has no layer to measure: no convolution reads the images")
    for pattern in patterns:
        if not matching(depths, pattern):
            raise InputError(f"{option} {pattern}: no such layer; known: {', '.join(depths)}")
    chosen = {name for pattern in patterns for name in matching(depths, pattern)}
    return {name: depth for name, depth in depths.items() if name in chosen}


def measure_layer(
    activations: np.ndarray,
    labels: np.ndarray,
    *,
    num_classes: int,
    config: OverlapConfig,
    mesh: Mesh | None = None,
) -> tuple[LayerMeasures, LayerArrays]:
    """The record of a layer's measures, and the arrays of those by channel.

    Activations are (N, H, W, C) and labels (N,) int32; a mesh shares the graphs, see `overlap`.
    """
    channels, whole = layer_graphs(activations, mesh=mesh, **graph_options(config))
    measures, by_channel = measure_graphs(channels, whole, labels, num_classes=num_classes)
    return layer_measures(measures), LayerArrays(**by_channel._asdict())


def chosen_epochs(run: Run, config: OverlapConfig) -> list[Epoch]:
    """The control and the epochs asked for; refused where they are not kept, or diverged before."""
    kept = kept_epochs(run)
    chosen = kept if config.at_epochs is None else sorted(set(config.at_epochs))
    refuse_diverged(run.path, epoch=None if config.at_epochs is None else chosen[-1])
    missing = sorted(set(chosen) - set(kept))
    if missing:
        raise InputError(f"--at-epochs {missing}: this run kept only the checkpoints of {kept}")
    control = 0 if train_config(run).weights is None and 0 in kept else RANDOM
    return list(dict.fromkeys([control, *chosen]))


def epoch_variables(run: Run, model: Model, dataset: Dataset, epoch: Epoch) -> dict:
    """The network's variables at an epoch, or those of the random control."""
    if epoch == RANDOM:
        return random_state(run, model, dataset).variables
    return load_state(run, model, dataset, epoch=epoch).variables


def graph_options(config: OverlapConfig) -> GraphOptions:
    """The options of `jnnk.graphs.nnk_graph` that a config stands for."""
    return {"num_neighbors": config.neighbors, "similarity": _SIMILARITIES[config.similarity]}
