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
from jax.core import Tracer

from jnnk._core.arrays import ArrayLike
from jnnk._core.whole_numbers import whole_number
from jnnk.network._names import PyTree, leaf_path
from jnnk.training._step import TrainState


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
    if not isinstance(patience, Tracer):
        patience = whole_number("patience", patience)
    better = errors < state.best
    waited = jnp.where(better, 0, state.waited + 1)
    best = jnp.where(better, errors, state.best)
    return Patience(
        jnp.where(state.stopped, state.best, best),
        jnp.where(state.stopped, state.waited, waited),
        state.stopped | (waited >= patience),
    )


def trainable_masks(
    params: PyTree, convs: Iterable[Conv], stopped: Mapping[str, ArrayLike]
) -> PyTree:
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
    """An optimiser that leaves frozen parameters and their moments as they are, bit for bit.

    Use it as ``optimizer.update(grads, state, params, trainable=trainable)``. As with
    `jnnk.pruning.keep_pruned_zero`, the mask is an argument of each update, because it changes
    during a training; the state is that of the optimiser within. (The mask of ``optax.masked``
    never changes: it is given once, and decides what the state holds.) `TrainState` carries the
    masks of both from step to step. Running statistics of BatchNorm are no parameters and go on.

    Args:
        optimizer: any Optax transformation.

    Returns:
        A transformation with ``update(updates, state, params, *, trainable, **extra)``:
        ``trainable`` is a tree of the parameters' treedef, 1 where they train and 0 where they are
        frozen; its leaves broadcast to the parameters.

    Raises:
        ValueError: by ``update``, if it has no ``trainable``.

    Examples:
        >>> optimizer = freezable(optax.sgd(0.5))
        >>> params, trainable = {"w": jnp.ones(2)}, {"w": jnp.array([1.0, 0.0])}
        >>> state = optimizer.init(params)
        >>> updates, state = optimizer.update(params, state, params, trainable=trainable)
        >>> print(optax.apply_updates(params, updates)["w"])
        [0.5 1. ]
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def update(
        updates: PyTree,
        state: PyTree,
        params: PyTree | None = None,
        *,
        trainable: PyTree | None = None,
        **extra: Any,
    ) -> tuple[PyTree, PyTree]:
        if trainable is None:
            raise ValueError("trainable: freezable needs the mask of what trains, got None")
        updates, new_state = optimizer.update(updates, state, params, **extra)
        updates = jax.tree.map(
            lambda update, mask: jnp.where(mask != 0, update, 0), updates, trainable
        )
        moves = optax.tree_utils.tree_map_params(
            optimizer,
            lambda moment, mask: jnp.broadcast_to(mask != 0, moment.shape),
            new_state,
            trainable,
            transform_non_params=lambda leaf: jnp.ones(jnp.shape(leaf), bool),
        )
        return updates, jax.tree.map(jnp.where, moves, new_state, state)

    return optax.GradientTransformationExtraArgs(optimizer.init, update)


def start_freezing(state: TrainState) -> TrainState:
    """The state of a training by a `freezable` optimiser, with nothing frozen yet."""
    return state._replace(trainable=trainable_masks(state.params, (), {}))


def freeze(state: TrainState, trainable: PyTree) -> TrainState:
    """The state with another mask of what trains.

    Args:
        state: of a training by a `freezable` optimiser.
        trainable: of `trainable_masks`.

    Raises:
        ValueError: if ``trainable`` has not the treedef of the parameters.
    """
    if jax.tree.structure(state.params) != jax.tree.structure(trainable):
        raise ValueError("trainable: expected the treedef of the parameters")
    # Copies: leaves that share a buffer cannot be donated to the training step.
    return state._replace(trainable=jax.tree.map(jnp.copy, trainable))
