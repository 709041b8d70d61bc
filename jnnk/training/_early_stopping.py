"""Early stopping channel by channel: patience on every channel's own error, and frozen filters.

CW-DeepNNK (Bonet, Ortega, Ruiz-Hidalgo and Shekkizhar, "Channel-wise early stopping without a
validation set via NNK polytope interpolation", arXiv 2107.12972): a channel whose leave-one-out
error stops falling is frozen, its filter and bias no longer move, and training ends when all are.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jnnk._core.whole_numbers import whole_number
from jnnk.pruning._conv_leaves import leaf_path


class Patience(NamedTuple):
    """How long errors have not fallen; any shape, such as (C,) for the channels of a layer.

    Attributes:
        best: floating (...), the smallest error so far.
        waited: int32 (...), measurements since.
        stopped: bool (...), out of patience; for good.
    """

    best: Array
    waited: Array
    stopped: Array


class FreezeState(NamedTuple):
    """State of `freezable`.

    Attributes:
        inner: state of the optimiser within.
        trainable: treedef of the params, 1 where they train and 0 where they are frozen; leaves
            broadcast to their parameter.
    """

    inner: Any
    trainable: Any


class Conv(Protocol):
    """What `trainable_masks` needs to know of a conv, as ``model.convs()`` tells it."""

    conv: str
    norm: str | None


def start_patience(shape: tuple[int, ...]) -> Patience:
    """Patience before the first measurement."""
    return Patience(
        jnp.full(shape, jnp.inf, jnp.float32), jnp.zeros(shape, jnp.int32), jnp.zeros(shape, bool)
    )


def update_patience(state: Patience, errors: Array, *, patience: int) -> Patience:
    """Patience after one more measurement.

    Args:
        state: the patience before.
        errors: (...) floating; NaN counts as not smaller.
        patience: measurements without a smaller error that stop, 1 or more.

    Returns:
        The new state. What has stopped stays so, its ``best`` and ``waited`` as they were.

    Raises:
        ValueError: if ``patience`` is no whole number of at least 1, where that is known before
            tracing.
    """
    if not isinstance(patience, jax.core.Tracer):
        patience = whole_number("patience", patience)
    better = errors < state.best
    waited = jnp.where(better, 0, state.waited + 1)
    best = jnp.where(better, errors, state.best)
    return Patience(
        jnp.where(state.stopped, state.best, best),
        jnp.where(state.stopped, state.waited, waited),
        state.stopped | (waited >= patience),
    )


def trainable_masks(params: Any, convs: Iterable[Conv], stopped: Mapping[str, Array]) -> Any:
    """The gradient mask that freezes the filters, biases, and BatchNorm of stopped channels.

    Args:
        params: pytree of parameters.
        convs: the network's convs, ``model.convs()``.
        stopped: path of a conv -> bool (C,), which of its filters are frozen.

    Returns:
        float32, treedef of ``params``, a number for each entry of a leaf's last axis, of shape
        ``(1, ..., 1, C)``: 0 at the kernels and biases of those filters and the scale and shift of
        their BatchNorm, 1 everywhere else. Shapes depend on ``params`` alone.
    """
    frozen = {}
    for info in convs:
        if info.conv in stopped:
            keep = (~jnp.asarray(stopped[info.conv])).astype(jnp.float32)
            frozen[info.conv] = keep
            if info.norm is not None:
                frozen[info.norm] = keep

    def mask_of(path: tuple, leaf: Array) -> Array:
        keep = frozen.get(leaf_path(path).rpartition("/")[0])
        shape = (1,) * (leaf.ndim - 1) + leaf.shape[-1:]
        return jnp.ones(shape, jnp.float32) if keep is None else keep.reshape(shape)

    return jax.tree_util.tree_map_with_path(mask_of, params)


def freezable(
    optimizer: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """Wrap an optimiser so that frozen parameters and their moments stay as they are, bit for bit.

    The mask is part of the optimiser's state: `freeze` replaces it, a checkpoint holds it, and the
    training step knows nothing of it. Running statistics of BatchNorm are no parameters and go on.

    Args:
        optimizer: any Optax transformation.

    Returns:
        A transformation whose state is a `FreezeState` with nothing frozen.
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def init(params: Any) -> FreezeState:
        return FreezeState(optimizer.init(params), trainable_masks(params, (), {}))

    def update(updates: Any, state: FreezeState, params: Any | None = None, **extra: Any):
        updates, inner = optimizer.update(updates, state.inner, params, **extra)
        updates = jax.tree.map(
            lambda update, mask: jnp.where(mask != 0, update, 0), updates, state.trainable
        )
        moves = optax.tree_utils.tree_map_params(
            optimizer,
            lambda moment, mask: jnp.broadcast_to(mask != 0, moment.shape),
            inner,
            state.trainable,
            transform_non_params=lambda leaf: jnp.ones(jnp.shape(leaf), bool),
        )
        inner = jax.tree.map(jnp.where, moves, inner, state.inner)
        return updates, state._replace(inner=inner)

    return optax.GradientTransformationExtraArgs(init, update)


def freeze(opt_state: FreezeState, trainable: Any) -> FreezeState:
    """The optimiser's state with another mask, of `trainable_masks`."""
    like = opt_state.trainable
    if jax.tree.structure(like) != jax.tree.structure(trainable):
        raise ValueError("trainable: expected the treedef of the parameters")
    # Copies: leaves that share a buffer cannot be donated to the training step.
    return opt_state._replace(trainable=jax.tree.map(jnp.copy, trainable))
