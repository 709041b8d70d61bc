"""What pruning kernels and channels share: a network under a mask, fine-tuned and measured."""

import pathlib
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from jnnk._core.timing import latencies
from jnnk.data import Dataset
from jnnk.jobs.networks import not_supported
from jnnk.jobs.train import train_config
from jnnk.jobs.trainer import Evaluate, Recipe, Trainer
from jnnk.network import Network
from jnnk.pruning import MaskSummary, apply_masks, compact, summarize
from jnnk.runs.folder import Run
from jnnk.runs.mask_files import save_masks
from jnnk.runs.progress import Progress
from jnnk.runs.records import FineTuned, Latency
from jnnk.runs.settings import ChannelConfig, PruneConfig
from jnnk.training import Model, make_predict, start_state


class Pruned(NamedTuple):
    """A network that was pruned and fine-tuned."""

    variables: dict  # after fine-tuning
    accuracies: FineTuned  # before and after
    kept: MaskSummary  # what the mask keeps
    latency: Latency | None  # None where the network does not tell its wiring


def prune_and_finetune(
    run: Run,
    model: Model,
    dataset: Dataset,
    variables: dict,
    masks: Any,
    config: PruneConfig | ChannelConfig,
    *,
    network: Network,
    evaluate: Evaluate,
    folder: pathlib.Path,
    progress: Progress,
) -> Pruned:
    """Trains under a mask as the run's config trains, for the epochs and at the rate of ``config``.

    The folder gets the mask, checkpoints and metrics.
    """
    save_masks(folder / "masks.safetensors", masks, network=network)
    settings, epochs = train_config(run), config.finetune_epochs
    if epochs is None:
        epochs = max(settings.epochs // 10, 1)
    rate, seed = config.finetune_learning_rate, settings.seed + 1
    recipe = Recipe.of(settings, epochs=epochs, learning_rate=rate, l1=0.0)
    trainer = Trainer(model, dataset, recipe, evaluate=evaluate)
    pruned = {**variables, "params": apply_masks(variables["params"], masks)}
    before, at_once = trainer.accuracy(variables), trainer.accuracy(pruned)
    state = trainer.fit(
        partial(start_state, trainer.optimizer, jax.random.key(seed), variables, masks=masks),
        seed=seed,
        folder=folder,
        progress=progress,
        description="fine-tune",
        remedy=f"a smaller --finetune-learning-rate than {rate:g}, {folder} deleted",
    )
    accuracies = FineTuned(
        accuracy_before=before,
        accuracy_pruned=at_once,
        accuracy_finetuned=trainer.accuracy(state.variables),
        finetune_epochs=epochs,
        revived_weights=count_revived(state.params, state.masks),
    )
    progress.check()
    if reason := not_supported(model, "latency of the compacted network"):
        progress.note(reason)
    return Pruned(
        variables=state.variables,
        accuracies=accuracies,
        kept=summarize(variables["params"], masks, network=network),
        latency=latency_gain(model, state.variables, masks, dataset),
    )


def count_revived(params: Any, masks: Any) -> int:
    """How many pruned weights are not exactly zero; 0 unless something is wrong."""
    params, masks = jax.tree.map(np.asarray, (params, masks))  # they may lie on different devices
    revived = jax.tree.map(lambda leaf, mask: ((leaf != 0) & (mask == 0)).sum(), params, masks)
    return int(sum(jax.tree.leaves(revived)))


def latency_gain(
    model: Model, variables: dict, masks: Any, dataset: Dataset, *, batch_size: int = 64
) -> Latency | None:
    """Times logits of a batch of test images, before and after compaction, in one run.

    The weights that the mask prunes are zero. Kernels alone save no time: only filters without a
    kernel left go. None where the network does not tell its wiring.
    """
    if not_supported(model, "latency"):
        return None
    whole: Any = model
    images = jax.device_put(dataset.test_images[:batch_size])
    networks = {"whole": (whole, variables), "compacted": compact(whole, variables, masks)}

    def caller(network: Any, variables: dict):
        predict = make_predict(network, normalization=dataset.normalization)
        logits = jax.jit(lambda variables, images: predict(variables, images)[0])
        variables = jax.device_put(variables)
        return lambda: logits(variables, images)

    times = latencies({name: caller(*network) for name, network in networks.items()})
    return Latency(device=jax.devices()[0].device_kind, images=len(images), **times)
