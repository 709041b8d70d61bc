"""A network's answers to images, and how many of them are right."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jnnk._core.whole_numbers import whole_number
from jnnk.data import Normalization, normalize
from jnnk.parallel._mesh import DATA, shared_apply
from jnnk.training._checks import check_normalization
from jnnk.training._state import Model


def make_predict(
    model: Model, *, normalization: Normalization
) -> Callable[[dict, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]:
    """``predict(variables, images) -> (logits, activations)`` for uint8 images, not jitted.

    Args:
        model: the network.
        normalization: of the images, such as that of their `jnnk.data.Dataset`.

    Raises:
        ValueError: if a mean is not finite, or a deviation not finite and above 0.
    """
    check_normalization(normalization)

    def predict(variables, images):
        return model.apply(variables, normalize(images, normalization), train=False)

    return predict


def make_evaluate(
    model: Model,
    *,
    normalization: Normalization,
    batch_size: int = 500,
    mesh: Mesh | None = None,
) -> Callable[[dict, np.ndarray, np.ndarray], float]:
    """``evaluate(variables, images, labels) -> accuracy`` in [0, 1] over a whole set.

    NaN where the logits of an image are not all finite: such a network classifies nothing.

    The last batch is padded and its padding not counted, so one program serves every set and
    every pruned variant of the parameters.

    Args:
        model: the network.
        normalization: of the images, such as that of their `jnnk.data.Dataset`.
        batch_size: images a batch, rounded up to what the devices can share.
        mesh: devices that share every batch over its axis ``"data"``, on which the variables must
            lie; the images are given whole to every process.

    Raises:
        ValueError: if ``batch_size`` is below 1, or as for `make_predict`.
    """
    batch_size = whole_number("batch_size", batch_size)
    predict = make_predict(model, normalization=normalization)
    if mesh is not None:
        predict = shared_apply(predict, mesh)
        batch_size += -batch_size % mesh.shape[DATA]

    @jax.jit
    def count(variables, images, labels):
        logits, _ = predict(variables, images)
        is_lost = ~jnp.isfinite(logits).all(-1) & (labels >= 0)
        is_correct = jnp.argmax(logits, axis=-1) == labels
        return jnp.stack([is_correct, is_lost]).sum(-1, dtype=jnp.int32)

    def evaluate(variables: dict, images: np.ndarray, labels: np.ndarray) -> float:
        total = np.zeros(2, np.int64)  # correct, lost
        for start in range(0, len(images), batch_size):
            part, part_labels = (
                images[start : start + batch_size],
                labels[start : start + batch_size],
            )
            missing = batch_size - len(part)
            if missing:
                part = np.pad(part, ((0, missing), (0, 0), (0, 0), (0, 0)))
                part_labels = np.pad(part_labels, (0, missing), constant_values=-1)
            total += np.asarray(count(variables, part, part_labels))
        correct, lost = total.tolist()
        return math.nan if lost else correct / len(images)

    return evaluate
