"""Pictures of what single channels answer to, kept beside the measurements of ``jnnk overlap``."""

from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from jnnk._core.errors import InputError
from jnnk.graphs import channelwise_nnk_graph
from jnnk.graphs._layer_graphs import GraphOptions
from jnnk.network import capture
from jnnk.report.figures.channels import ChannelPictures, pick_pictures
from jnnk.runs.folder import Run
from jnnk.runs.overlap_files import Epoch, layer_file, read_arrays, read_npz, write_npz
from jnnk.runs.records import LayerRecord


def check_channels(
    channels: Mapping[str, Sequence[int]], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Refuses channels of layers without a shape (H, W, C) here, and those beyond the layer's C."""
    for layer, picked in channels.items():
        if layer not in shapes:
            raise InputError(f"--channels {layer}: not measured; measured: {', '.join(shapes)}")
        number = shapes[layer][-1]
        if beyond := [channel for channel in picked if channel >= number]:
            raise InputError(f"--channels {layer}: {beyond} are not among its {number} channels")


def default_channels(run: Run, record: LayerRecord) -> dict[str, tuple[int, ...]]:
    """By the layer's name, the two of its channels that overlap most and the two that do least.

    Nothing where pictures of the layer are there already or where there are no two live channels.
    """
    if layer_file(run.path, record.epoch, record.layer, "pictures.npz").exists():
        return {}
    overlap = read_arrays(run.path, record).overlap
    first, second = np.triu_indices(len(overlap), 1)
    of_pairs = overlap[first, second]
    if not np.isfinite(of_pairs).any():
        return {}
    pairs = (np.nanargmax(of_pairs), np.nanargmin(of_pairs))
    chosen = [int(side[pair]) for pair in pairs for side in (first, second)]
    return {record.layer: tuple(dict.fromkeys(chosen))}


def keep_pictures(
    run: Run,
    epoch: Epoch,
    channels: Mapping[str, Sequence[int]],
    predict: Callable,
    variables: dict,
    images: np.ndarray,
    *,
    options: GraphOptions,
) -> None:
    """Writes the pictures of the channels, leaving out what is there already.

    The images (N, H, W, D) uint8 are those that were measured; ``options`` are those of the graphs.
    """
    for layer, picked in channels.items():
        path = layer_file(run.path, epoch, layer, "pictures.npz")
        if path.exists() and tuple(read_npz(path, ChannelPictures).channels) == tuple(picked):
            continue
        (captured,) = capture(
            predict, variables, images, layers=[layer], channels={layer: picked}, site="reported"
        )
        graph = channelwise_nnk_graph(jnp.asarray(captured.values), **options)
        means = captured.values.mean((1, 2), dtype=np.float64)
        write_npz(path, pick_pictures(images, means, graph, captured.channels))
