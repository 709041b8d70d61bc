"""``jnnk prune --channels``: removes channels of a run's network, fine-tunes, compacts."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jnnk._core.errors import InputError
from jnnk._core.patterns import matching
from jnnk.data import Dataset
from jnnk.jobs.criteria import TAYLOR, channel_graphs, taylor
from jnnk.jobs.finetune import prune_and_finetune
from jnnk.jobs.networks import logits_of, told_channels
from jnnk.jobs.train import load_state, require_trained
from jnnk.network import compact
from jnnk.pruning import channel_masks, prunable_groups, taylor_channel_scores
from jnnk.pruning._channels import OF_GRAPHS
from jnnk.runs.contents import train_config
from jnnk.runs.divergence import read_result
from jnnk.runs.folder import Run
from jnnk.runs.json_files import write_json
from jnnk.runs.part_settings import note_or_check_settings
from jnnk.runs.progress import SILENT, Progress
from jnnk.runs.records import ChannelPruningResult, Compacted
from jnnk.runs.settings import ChannelConfig
from jnnk.training import Model


def prune_channels(
    run: Run, model: Model, dataset: Dataset, config: ChannelConfig, *, progress: Progress = SILENT
) -> ChannelPruningResult:
    """Removes channels from the trained network of a run, into its ``channels/CRITERION``.

    Raises:
        InputError: if no channel of the network can be removed, or the folder holds a pruning with
            other settings.
    """
    folder = run.path / "channels" / config.channels
    require_trained(run)
    network = told_channels(model, dataset, progress)
    groups = prunable_groups(network, streams=config.streams)
    if not groups:
        raise InputError("--channels: no convolution of this network has channels that can go")
    keep_rates = _keep_rates(config, list(groups))
    note_or_check_settings(folder, config)
    if (found := read_result(folder, ChannelPruningResult)) is not None:
        return found
    variables = load_state(run, model, dataset).variables
    progress.check()
    criterion, images, graphs = config.channels, config.images, None
    if criterion in OF_GRAPHS:
        convs = tuple(name for group in groups.values() for name in group.producers)
        graphs = channel_graphs(
            model, variables, dataset, convs, images=images, neighbors=config.neighbors
        )
    elif criterion == TAYLOR:
        scores = partial(taylor_channel_scores, network=network)
        criterion = taylor(scores, model, variables, dataset, images=images)
    masks = channel_masks(
        variables["params"], network, criterion, keep_rate=keep_rates,
        streams=config.streams, round_to=config.round_to, graphs=graphs,
        key=jax.random.key(train_config(run).seed),
    )  # fmt: skip
    pruned = prune_and_finetune(
        run,
        model,
        dataset,
        variables,
        masks,
        config,
        network=network,
        folder=folder,
        progress=progress,
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


def _largest_difference(model: Model, variables: dict, masks: Any, images: np.ndarray) -> float:
    """Between the logits of the compacted network and of the masked one."""
    inputs = jnp.asarray(images.astype(np.float32) / 255)
    logits = logits_of(model)
    small, small_variables = compact(logits, variables, masks, inputs)

    def both_logits(variables: dict, small_variables: dict) -> tuple[jax.Array, jax.Array]:
        return logits(variables, inputs), small(small_variables, inputs)

    whole_logits, small_logits = jax.jit(both_logits)(variables, small_variables)
    return float(np.abs(small_logits - whole_logits).max())


def _keep_rates(config: ChannelConfig, convs: list[str]) -> dict[str, float]:
    """Patterns of convs -> share of their channels kept; what matches none loses ``share``."""
    pairs = (text.rpartition("=") for text in config.layer_shares)
    rates = {pattern: 1 - float(share) for pattern, _, share in pairs}
    for pattern in rates:
        if not matching(convs, pattern):
            raise InputError(
                f"--layer-shares {pattern}: no conv matches; there are {', '.join(convs)}"
            )
    return rates if "*" in rates else {**rates, "*": 1 - config.share}
