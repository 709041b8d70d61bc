"""What pruning kernels and channels share: a network under a mask, fine-tuned and measured."""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jnnk._core.timing import latencies
from jnnk.data import Dataset, normalize
from jnnk.jobs.fit import Evaluate
from jnnk.jobs.networks import logits_of
from jnnk.jobs.trainer import Recipe, Trainer
from jnnk.network import Network, compact
from jnnk.pruning import MaskSummary, save_masks, summarize
from jnnk.runs.contents import train_config
from jnnk.runs.folder import Run
from jnnk.runs.progress import Progress
from jnnk.runs.records import FineTuned, Latency
from jnnk.runs.settings import ChannelConfig, PruneConfig
from jnnk.training import Model


class Pruned(NamedTuple):
    """A network that was pruned and fine-tuned."""

    variables: dict  # after fine-tuning
    accuracies: FineTuned  # before and after
    kept: MaskSummary  # what the mask keeps
    latency: Latency  # before and after compaction


def prune_and_finetune(
    run: Run,
    model: Model,
    dataset: Dataset,
    variables: dict,
    masks: Any,
    config: PruneConfig | ChannelConfig,
    *,
    network: Network,
    folder: pathlib.Path,
    progress: Progress,
    evaluate: Evaluate | None = None,
) -> Pruned:
    """Trains under a mask as the run's config trains, for the epochs and at the rate of ``config``.

    The folder gets the mask, checkpoints and metrics. By default ``evaluate`` is as of `Trainer`.
    """
    save_masks(folder / "masks.safetensors", masks, network=network)
    settings, epochs = train_config(run), config.finetune_epochs
    if epochs is None:
        epochs = max(settings.epochs // 10, 1)
    rate, seed = config.finetune_learning_rate, settings.seed + 1
    recipe = Recipe.of(settings, epochs=epochs, learning_rate=rate, l1=0.0)
    trainer = Trainer(model, dataset, recipe, evaluate=evaluate)
    state, accuracies = trainer.finetune(
        variables,
        masks,
        jax.random.key(seed),
        seed=seed,
        folder=folder,
        progress=progress,
        description="fine-tune",
        remedy=f"a smaller --finetune-learning-rate than {rate:g}, {folder} deleted",
    )
    progress.check()
    return Pruned(
        variables=state.variables,
        accuracies=accuracies,
        kept=summarize(variables["params"], masks, network=network),
        latency=latency_gain(model, state.variables, masks, dataset),
    )


def latency_gain(
    model: Model, variables: dict, masks: Any, dataset: Dataset, *, batch_size: int = 64
) -> Latency:
    """Times logits of a batch of test images, before and after compaction, in one run.

    The weights that the mask prunes are zero. Kernels alone save no time: only filters without a
    kernel left, or that no kernel reads, go.
    """
    images = jax.device_put(dataset.test_images[:batch_size])
    whole = logits_of(model)

    def logits(variables: dict, images: jax.Array) -> jax.Array:
        return whole(variables, normalize(images, dataset.normalization))

    def caller(function: Callable[[Any, jax.Array], jax.Array], variables: dict):
        compiled, variables = jax.jit(function), jax.device_put(variables)
        return lambda: compiled(variables, images)

    networks = {
        "whole": (logits, variables),
        "compacted": compact(logits, variables, masks, images),
    }
    times = latencies({name: caller(*network) for name, network in networks.items()})
    return Latency(device=jax.devices()[0].device_kind, images=len(images), **times)
