"""Early stopping channel by channel: patience on every channel's own error, and frozen filters.

CW-DeepNNK (Bonet, Ortega, Ruiz-Hidalgo and Shekkizhar, "Channel-wise early stopping without a
validation set via NNK polytope interpolation", arXiv 2107.12972): a channel whose leave-one-out
error stops falling is frozen, its filter and bias no longer move, and training ends when all are.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.core import Tracer
from jaxtyping import Bool, Float, Int32

from jnnk._core.arrays import ArrayLike
from jnnk._core.whole_numbers import whole_number
from jnnk.network import Conv, Network
from jnnk.network._names import Path, PyTree, leaves_by_path, unboxed
from jnnk.pruning._conv_leaves import find_path
from jnnk.training._state import TrainState


class Patience(NamedTuple):
    """How long errors have not fallen; any shape, such as (C,) for the channels of a layer.

    Attributes:
        best: floating (...), the smallest error so far.
        waited: int32 (...), measurements since.
        stopped: bool (...), out of patience; for good.
    """

    best: Float[Array, "*shape"]
    waited: Int32[Array, "*shape"]
    stopped: Bool[Array, "*shape"]


def start_patience(shape: tuple[int, ...]) -> Patience:
    """Patience before the first measurement."""
    return Patience(
        jnp.full(shape, jnp.inf, jnp.float32), jnp.zeros(shape, jnp.int32), jnp.zeros(shape, bool)
    )


def update_patience(
    state: Patience, errors: Float[ArrayLike, "*shape"], *, patience: int | Array
) -> Patience:
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
    params: PyTree, stopped: Mapping[str, Bool[ArrayLike, " _"]], *, network: Network | None = None
) -> PyTree:
    """The gradient mask that freezes the filters, biases and norms of stopped channels.

    Args:
        params: pytree of parameters.
        stopped: name of a convolution -> bool (C,), which of its filters are frozen.
        network: as `jnnk.network.read` reads it; needed where ``stopped`` names a convolution.

    Returns:
        float32, treedef of ``params``, a number for each entry of a leaf's axis of channels (the
        last one where it has none), 1 for the size of the others: 0 at the kernels and biases of
        those filters and the scale and shift of their norm, 1 everywhere else. Shapes depend on
        ``params`` and ``network`` alone.

    Raises:
        ValueError: if ``stopped`` names no convolution of the network.
    """
    leaves = leaves_by_path(params)
    known = {conv.name: conv for conv in network.convs} if network else {}
    axes = {
        place: axis
        for conv in known.values()
        for path, axis in _channel_axes(conv)
        if (place := find_path(leaves, path)) is not None
    }
    frozen: dict[Path, Array] = {}
    for name, which in stopped.items():
        if name not in known:
            raise ValueError(f"stopped: expected names of convs ({', '.join(known)}), got {name!r}")
        keep = (~jnp.asarray(which)).astype(jnp.float32)
        for path, _ in _channel_axes(known[name]):
            if (place := find_path(leaves, path)) is not None:
                # A kernel of several convolutions trains until the last of them has stopped.
                frozen[place] = jnp.maximum(keep, frozen.get(place, keep))

    def mask_of(path: Path, leaf: Array) -> Array:
        place = unboxed(path)
        axis = axes.get(place, leaf.ndim - 1)
        shape = [size if each == axis else 1 for each, size in enumerate(leaf.shape)]
        return frozen[place].reshape(shape) if place in frozen else jnp.ones(shape, jnp.float32)

    return jax.tree_util.tree_map_with_path(mask_of, params)


def _channel_axes(conv: Conv) -> list[tuple[Path, int]]:
    """The leaves of a convolution and its norm, and their axes over channels."""
    beside = [(leaf.path, leaf.axis) for leaf in conv.channel_leaves]
    return [(conv.path, conv.axes.output), *beside]


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
            raise ValueError("trainable: expected the mask of what trains, got None")
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


def start_freezing(state: TrainState, *, network: Network | None = None) -> TrainState:
    """The state of a training by a `freezable` optimiser, with nothing frozen yet.

    Args:
        state: of the training.
        network: the one that `trainable_masks` will be given; shapes stay the same with it.
    """
    return state._replace(trainable=trainable_masks(state.params, {}, network=network))


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
