"""What criteria look at beside the weights: graphs of the channels, and gradients of the loss."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jnnk.data import Dataset, normalize
from jnnk.graphs import NNKGraph, channelwise_nnk_graph
from jnnk.jobs.networks import logits_of
from jnnk.network import capture
from jnnk.training import Batch, Model, make_predict

TAYLOR = "taylor"
"""The criterion by gradients, as options and records name it."""
_BATCH = 100
_SIZE = 8  # maps are averaged to at most so many positions a side


def channel_graphs(
    model: Model,
    variables: dict[str, Any],
    dataset: Dataset,
    convs: tuple[str, ...],
    *,
    images: int,
    neighbors: int,
) -> dict[str, NNKGraph]:
    """By conv, the channel-wise NNK graph of its activations on the first training images.

    Maps are averaged to at most 8 x 8, and there are at most as many neighbours as other images.
    """
    logits = logits_of(model)

    def predict(variables: dict[str, Any], images: jax.Array) -> jax.Array:
        return logits(variables, normalize(images, dataset.normalization))

    chosen = np.asarray(dataset.train_images[:images])
    neighbors = min(neighbors, len(chosen) - 1)
    return {
        captured.name: channelwise_nnk_graph(jnp.asarray(captured.values), num_neighbors=neighbors)
        for captured in capture(
            predict, variables, chosen, layers=convs, pooling="mean", size=_SIZE
        )
    }


def taylor(
    scores: Callable, model: Model, variables: dict, dataset: Dataset, *, images: int
) -> Any:
    """Taylor ``scores`` of `jnnk.pruning`, by the cross-entropy of the network as it answers.

    BatchNorm's statistics are those of ``variables``. The first training images are used, rounded
    down to whole batches of 100 where there are more.
    """
    predict = make_predict(model, normalization=dataset.normalization)

    def loss(params: Any, batch: Batch) -> jax.Array:
        logits, _ = predict({**variables, "params": params}, jnp.asarray(batch.images))
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels).mean()

    images = min(images, len(dataset.train_images))
    size = min(_BATCH, images)
    count = images // size
    chosen: Any = np.asarray(dataset.train_images[: count * size])  # which jit takes as well
    labels: Any = np.asarray(dataset.train_labels[: count * size], np.int32)
    batches = Batch(chosen.reshape(count, size, *chosen.shape[1:]), labels.reshape(count, size))
    return jax.jit(partial(scores, loss))(variables["params"], batches)
