"""``jnnk prune --channels``: removes inner channels of a run's network, fine-tunes, compacts."""

import fnmatch
from functools import partial
from typing import Any

import jax
import numpy as np

from jnnk._core.errors import InputError
from jnnk.data import Dataset
from jnnk.jobs.criteria import TAYLOR, inner_graphs, training_loss
from jnnk.jobs.finetune import prune_and_finetune
from jnnk.jobs.networks import network_of, require_supported
from jnnk.jobs.train import load_state, require_trained, train_config
from jnnk.pruning import channel_masks, compact, inner_convs, taylor_channel_scores
from jnnk.pruning._channels import OF_GRAPHS
from jnnk.runs.divergence import refuse_diverged
from jnnk.runs.folder import Run, read_json, require_settings, write_json
from jnnk.runs.progress import SILENT, Progress
from jnnk.runs.records import ChannelPruningResult, Compacted
from jnnk.runs.settings import ChannelConfig
from jnnk.training import make_evaluate


def prune_channels(
    run: Run, model: Any, dataset: Dataset, config: ChannelConfig, *, progress: Progress = SILENT
) -> ChannelPruningResult:
    """Removes channels from the trained network of a run, into its ``channels/CRITERION``.

    Raises:
        InputError: if this is not supported for the network or it has no inner channels, or the
            folder holds a pruning with other settings.
    """
    folder = run.path / "channels" / config.channels
    require_supported(model, "--channels")
    require_trained(run)
    keep_rates = _keep_rates(config, [info.conv for info in inner_convs(model.convs())])
    require_settings(folder, config)
    path = folder / "result.json"
    if path.exists():
        refuse_diverged(folder)
        return read_json(path, kind=ChannelPruningResult)
    variables = load_state(run, model, dataset).variables
    progress.check()
    graphs = None
    if config.channels in OF_GRAPHS:
        graphs = inner_graphs(
            model, variables, dataset, images=config.images, neighbors=config.neighbors
        )
    criterion = config.channels
    if criterion == TAYLOR:
        loss, batches = training_loss(model, variables, dataset, images=config.images)
        score = partial(taylor_channel_scores, loss, convs=model.convs())
        criterion = jax.jit(score)(variables["params"], batches)
    masks = channel_masks(
        variables["params"], model.convs(), criterion,
        keep_rate=keep_rates, round_to=config.round_to,
        graphs=graphs, key=jax.random.key(train_config(run).seed),
    )  # fmt: skip
    evaluate = make_evaluate(model, normalization=dataset.normalization)
    pruned = prune_and_finetune(
        run, model, dataset, variables, masks, config,
        network=network_of(model, dataset), evaluate=evaluate, folder=folder, progress=progress,
    )  # fmt: skip
    small, small_variables = compact(model, pruned.variables, masks)
    images = dataset.test_images[:64].astype(np.float32) / 255

    def both_logits(variables: dict, small_variables: dict) -> tuple[jax.Array, jax.Array]:
        return model.apply(variables, images)[0], small.apply(small_variables, images)[0]

    whole_logits, small_logits = jax.jit(both_logits)(pruned.variables, small_variables)
    difference = float(np.abs(small_logits - whole_logits).max())
    result = ChannelPruningResult(
        criterion=config.channels,
        share=config.share,
        pruned=pruned.accuracies,
        kept=pruned.kept,
        latency=pruned.latency,
        compacted=Compacted(largest_difference_of_logits=difference),
    )
    write_json(path, result)
    return result


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
