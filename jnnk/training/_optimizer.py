"""SGD and Adam on a cosine schedule, under masks."""

import jax
import jax.numpy as jnp
import optax

from jnnk.network._names import KERNELS, Path, PyTree, leaf_path
from jnnk.pruning import keep_pruned_zero
from jnnk.training._checks import check_not_negative

OPTIMIZERS = ("sgd", "adam")
# What libraries call what is no weight of a layer.
_SCALES_AND_SHIFTS = ("scale", "bias", "b", "offset", "gamma", "beta")


def make_optimizer(
    name: str,
    *,
    learning_rate: float,
    num_steps: int,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
) -> optax.GradientTransformationExtraArgs:
    """SGD with momentum or Adam on a cosine schedule, keeping pruned weights at exactly zero.

    Args:
        name: ``"sgd"`` (Nesterov momentum, weight decay added to the gradient) or ``"adam"``
            (weight decay decoupled, AdamW).
        learning_rate: peak rate, falling to 0 over ``num_steps`` by a cosine.
        num_steps: length of the schedule in steps.
        momentum: of SGD; Adam keeps Optax's defaults.
        weight_decay: on conv and dense kernels; BatchNorm scales, shifts and biases are spared.

    Raises:
        ValueError: for an unknown name, or a number that is negative or not finite.
    """
    check_not_negative(learning_rate=learning_rate, num_steps=num_steps, weight_decay=weight_decay)
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum: expected a number of 0 or more and below 1, got {momentum}")
    cosine = optax.cosine_decay_schedule(learning_rate, max(num_steps, 1))

    def schedule(count):  # Optax mixes the integer count with floats, which strict promotion bars
        return cosine(count.astype(jnp.float32))

    if name == "sgd":
        optimizer = optax.chain(
            optax.add_decayed_weights(weight_decay, mask=_is_decayed),
            optax.sgd(schedule, momentum=momentum, nesterov=True),
        )
    elif name == "adam":
        optimizer = optax.adamw(schedule, weight_decay=weight_decay, mask=_is_decayed)
    else:
        raise ValueError(f"name: expected one of {', '.join(OPTIMIZERS)}, got {name!r}")
    return keep_pruned_zero(optimizer)


def _is_decayed(params: PyTree) -> PyTree:
    """Which leaves are weights of layers: matrices and kernels, not scales, shifts and biases.

    These may have axes of size 1 beside that of channels, as in Equinox and Haiku, or one of the
    steps of a scan.
    """

    def is_weight(path: Path, leaf: jax.Array) -> bool:
        name = leaf_path(path).rpartition("/")[2]
        is_vector = sum(size > 1 for size in leaf.shape) < 2 and name not in KERNELS
        return leaf.ndim > 1 and not is_vector and name not in _SCALES_AND_SHIFTS

    return jax.tree_util.tree_map_with_path(is_weight, params)
