"""``jnnk prune --channels``: removes inner channels of a run's network, fine-tunes, compacts."""

import fnmatch
from functools import partial
from typing import Any

import jax
import numpy as np
from flax.linen import Module

from jnnk._core.errors import InputError
from jnnk.data import Dataset
from jnnk.jobs.criteria import TAYLOR, inner_graphs, taylor
from jnnk.jobs.finetune import prune_and_finetune
from jnnk.jobs.train import load_state, require_trained
from jnnk.pruning import channel_masks, compact, inner_convs, taylor_channel_scores
from jnnk.pruning._channels import OF_GRAPHS
from jnnk.runs.contents import train_config
from jnnk.runs.divergence import read_result
from jnnk.runs.folder import Run, require_settings, write_json
from jnnk.runs.progress import SILENT, Progress
from jnnk.runs.records import ChannelPruningResult, Compacted
from jnnk.runs.settings import ChannelConfig


def prune_channels(
    run: Run, model: Module, dataset: Dataset, config: ChannelConfig, *, progress: Progress = SILENT
) -> ChannelPruningResult:
    """Removes channels from the trained network of a run, into its ``channels/CRITERION``.

    Raises:
        InputError: if the network does not tell its wiring or has no inner channels, or the folder
            holds a pruning with other settings.
    """
    folder = run.path / "channels" / config.channels
    if not hasattr(model, "convs"):
        raise InputError("--channels needs a network that tells its wiring")
    require_trained(run)
    keep_rates = _keep_rates(config, [info.conv for info in inner_convs(model.convs())])
    require_settings(folder, config)
    if (found := read_result(folder, ChannelPruningResult)) is not None:
        return found
    variables, convs = load_state(run, model, dataset).variables, model.convs()
    progress.check()
    criterion, images, graphs = config.channels, config.images, None
    if criterion in OF_GRAPHS:
        graphs = inner_graphs(model, variables, dataset, images=images, neighbors=config.neighbors)
    elif criterion == TAYLOR:
        scores = partial(taylor_channel_scores, convs=convs)
        criterion = taylor(scores, model, variables, dataset, images=images)
    masks = channel_masks(
        variables["params"], convs, criterion, keep_rate=keep_rates, round_to=config.round_to,
        graphs=graphs, key=jax.random.key(train_config(run).seed),
    )  # fmt: skip
    pruned = prune_and_finetune(
        run, model, dataset, variables, masks, config, folder=folder, progress=progress
    )
    difference = _largest_difference(model, pruned.variables, masks, dataset.test_images[:64])
    result = ChannelPruningResult(
        criterion=config.channels,
        share=config.share,
        pruned=pruned.accuracies,
        kept=pruned.kept,
        latency=pruned.latency,
        compacted=Compacted(largest_difference_of_logits=difference),
    )
    write_json(folder / "result.json", result)
    return result


def _largest_difference(model: Module, variables: dict, masks: Any, images: np.ndarray) -> float:
    """Between the logits of the compacted network and of the masked one."""
    small, small_variables = compact(model, variables, masks)
    inputs = images.astype(np.float32) / 255

    def both_logits(variables: dict, small_variables: dict) -> tuple[jax.Array, jax.Array]:
        return model.apply(variables, inputs)[0], small.apply(small_variables, inputs)[0]

    whole_logits, small_logits = jax.jit(both_logits)(variables, small_variables)
    return float(np.abs(small_logits - whole_logits).max())


def _keep_rates(config: ChannelConfig, convs: list[str]) -> dict[str, float]:
    """Patterns of convs -> share of their channels kept; what matches none loses ``share``."""
    pairs = (text.rpartition("=") for text in config.layer_shares)
    rates = {pattern: 1 - float(share) for pattern, _, share in pairs}
    for pattern in rates:
        if not fnmatch.filter(convs, pattern):
            raise InputError(
                f"--layer-shares {pattern}: no inner conv matches; there are {', '.join(convs)}"
            )
    return rates if "*" in rates else {**rates, "*": 1 - config.share}
