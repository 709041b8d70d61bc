"""``jnnk overlap``: channel-wise NNK graphs of a run's layers and epochs, and what they tell."""

import fnmatch
import io
import pathlib
import zipfile
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jnnk import similarity
from jnnk.activations import capture
from jnnk.channels import channelwise_nnk_graph
from jnnk.data import Dataset, epoch_order
from jnnk.dimension import nnk_degree
from jnnk.errors import InputError
from jnnk.generalization import loo_error
from jnnk.graph import NNKGraph, nnk_graph
from jnnk.jobs.config import OverlapConfig
from jnnk.jobs.progress import Progress, Silent
from jnnk.jobs.train import kept_epochs, load_state, train_config
from jnnk.overlap import channel_overlap
from jnnk.redundancy import redundancy
from jnnk.runs import Run, read_json, require_settings, write_bytes, write_json
from jnnk.training import Model, make_predict

SIMILARITIES = {"gaussian": similarity.gaussian, "cosine": similarity.cosine}


class LayerArrays(NamedTuple):
    """The arrays kept of one layer at one epoch.

    Attributes:
        overlap: (C, C) mean Jaccard overlap of the channels' neighbourhoods, NaN for dead channels.
        degree: (C,) mean NNK degree over images.
        loo_error: (C,) leave-one-out error of each channel's NNK label interpolation.
    """

    overlap: np.ndarray
    degree: np.ndarray
    loo_error: np.ndarray


def overlap(
    run: Run,
    model: Model,
    dataset: Dataset,
    config: OverlapConfig,
    *,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Measures every chosen layer at every chosen epoch, leaving out what is measured already.

    Args:
        run: a trained run folder; results go to its ``overlap/``.
        model: the network named in its config.
        dataset: the data set named in its config.
        config: what to measure.
        progress: shows how far it is.

    Returns:
        One record an epoch and layer, in that order (see :func:`measure_layer`).

    Raises:
        InputError: for epochs that are not kept, layers that do not exist, or a folder that holds
            measurements made with other settings.
    """
    progress = progress or Silent()
    folder = run.path / "overlap"
    settings = config._asdict()
    require_settings(
        folder, {name: settings[name] for name in ("images", "neighbors", "similarity")}
    )
    kept = kept_epochs(run)
    epochs = kept if config.epochs is None else list(config.epochs)
    missing = sorted(set(epochs) - set(kept))
    if missing:
        raise InputError(f"--epochs {missing}: this run kept only the checkpoints of {kept}")
    if not epochs:
        raise InputError(f"{run.path} holds no trained network yet; run jnnk train first")

    rows = epoch_order(len(dataset.train_images), seed=train_config(run).seed, epoch=0)
    rows = np.sort(rows[: config.images])
    images, labels = dataset.train_images[rows], dataset.train_labels[rows]
    predict = make_predict(model, mean=dataset.mean, std=dataset.std)
    records = []
    variables = load_state(run, model, dataset, epoch=epochs[0]).variables
    layers = chosen_layers(predict, variables, images, config.layers)
    with progress.task("overlap", total=len(epochs) * len(layers), unit="layer") as task:
        for epoch in epochs:
            variables = load_state(run, model, dataset, epoch=epoch).variables
            for depth, layer in layers.items():
                stem = folder / f"epoch{epoch:04d}" / layer.replace("/", ".")
                if not stem.with_suffix(".json").exists():
                    captured = capture(predict, variables, images, layers=[layer])
                    record, arrays = measure_layer(
                        captured[layer].activations,
                        labels,
                        num_classes=len(dataset.class_names),
                        config=config,
                    )
                    write_npz(stem.with_suffix(".npz"), arrays._asdict())
                    write_json(
                        stem.with_suffix(".json"),
                        {"epoch": epoch, "depth": depth, "layer": layer, **record},
                    )
                records.append(read_json(stem.with_suffix(".json")))
                task.advance(overlap=records[-1]["overlap"] or 0.0)
    return records


def chosen_layers(predict, variables, images, patterns: tuple[str, ...]) -> dict[int, str]:
    """The layers that match any of the patterns: place in the network to name.

    Raises:
        InputError: for a pattern that matches no layer.
    """
    _, activations = jax.eval_shape(predict, variables, images[:1])
    for pattern in patterns:
        if not fnmatch.filter(activations, pattern):
            raise InputError(
                f"--layers {pattern}: no such layer; there are {', '.join(activations)}"
            )
    return {
        depth: name
        for depth, name in enumerate(activations)
        if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
    }


def measure_layer(
    activations: np.ndarray, labels: np.ndarray, *, num_classes: int, config: OverlapConfig
) -> tuple[dict[str, Any], LayerArrays]:
    """All measures of one layer.

    Args:
        activations: (N, H, W, C).
        labels: (N,) int32.
        num_classes: number of classes.
        config: neighbours and similarity.

    Returns:
        The numbers for a record, and the arrays by channel. ``overlap`` is the mean over pairs of
        different live channels, ``dimension`` the mean NNK degree of the layer's own graph.
    """
    neighbors = min(config.neighbors, len(labels) - 1)
    kernel = SIMILARITIES[config.similarity]()
    graph = channelwise_nnk_graph(
        jnp.asarray(activations), num_neighbors=neighbors, similarity=kernel
    )
    whole = nnk_graph(
        jnp.asarray(activations.reshape(len(activations), -1), jnp.float32),
        num_neighbors=neighbors,
        similarity=kernel,
    )
    arrays = LayerArrays(
        overlap=np.asarray(channel_overlap(graph)),
        degree=np.asarray(nnk_degree(graph).mean(axis=-1)),
        loo_error=np.asarray(loo_error(graph, labels, num_classes)),
    )
    live = np.isfinite(np.diagonal(arrays.overlap))
    record = {
        "channels": len(live),
        "dead_channels": int((~live).sum()),
        "overlap": _mean_off_diagonal(arrays.overlap[np.ix_(live, live)]),
        "redundancy": float(redundancy(graph)),
        "channel_dimension": float(arrays.degree[live].mean()) if live.any() else None,
        "dimension": float(nnk_degree(whole).mean()),
        "channel_loo_error": float(np.nanmean(arrays.loo_error[live])) if live.any() else None,
        "loo_error": float(loo_error(whole, labels, num_classes)),
        "converged": _share_converged(graph, live),
    }
    return record, arrays


def read_arrays(folder: pathlib.Path, record: dict[str, Any]) -> LayerArrays:
    """The arrays that belong to a record of :func:`overlap`.

    Args:
        folder: the run folder.
        record: has ``epoch`` and ``layer``.

    Raises:
        InputError: if the file is missing or damaged.
    """
    layer = record["layer"].replace("/", ".")
    path = folder / "overlap" / f"epoch{record['epoch']:04d}" / f"{layer}.npz"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return LayerArrays(**{name: arrays[name] for name in LayerArrays._fields})
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); delete its .json to measure again"
        ) from None


def write_npz(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes an .npz atomically."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_bytes(path, buffer.getvalue())


def _mean_off_diagonal(matrix: np.ndarray) -> float | None:
    pairs = matrix[~np.eye(len(matrix), dtype=bool)]
    return float(pairs.mean()) if pairs.size else None


def _share_converged(graph: NNKGraph, live: np.ndarray) -> float | None:
    return float(np.asarray(graph.converged)[live].mean()) if live.any() else None
