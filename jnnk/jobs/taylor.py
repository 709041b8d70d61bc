"""Taylor scores of a run's network on its training images."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from jnnk.data import Dataset
from jnnk.training import Batch, Model, make_predict

TAYLOR = "taylor"
"""The criterion's name in options and records."""
_BATCH = 100


def training_loss(
    model: Model, variables: dict[str, Any], dataset: Dataset, *, images: int
) -> tuple[Callable[[Any, Batch], jax.Array], Batch]:
    """What `jnnk.pruning` asks for: the cross-entropy of the network as it answers, and batches.

    BatchNorm's statistics are those of ``variables``. The first training images are used, rounded
    down to whole batches of 100 where there are more.

    Returns:
        ``loss(params, batch)`` and the batches, a ``Batch`` with a leading axis.
    """
    predict = make_predict(model, normalization=dataset.normalization)

    def loss(params: Any, batch: Batch) -> jax.Array:
        logits, _ = predict({**variables, "params": params}, batch.images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels).mean()

    images = min(images, len(dataset.train_images))
    size = min(_BATCH, images)
    count = images // size
    chosen = np.asarray(dataset.train_images[: count * size])
    labels = np.asarray(dataset.train_labels[: count * size], np.int32)
    batches = Batch(chosen.reshape(count, size, *chosen.shape[1:]), labels.reshape(count, size))
    return loss, batches
