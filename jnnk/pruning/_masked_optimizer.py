"""Optimisers under which pruned weights stay zero."""

import functools
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax

from jnnk.network._names import Path, PyTree, leaves_by_path, unboxed


def keep_pruned_zero(
    optimizer: optax.GradientTransformation | optax.MultiSteps, *, masks: PyTree | None = None
) -> optax.GradientTransformationExtraArgs:
    """An optimiser under which pruned weights are exactly zero after every update.

    Use it as ``optimizer.update(grads, state, params, masks=masks)``. The mask is an argument of
    each update, because a schedule may change it during a training; the state is that of the
    optimiser within. (The mask of ``optax.masked`` is another thing: it never changes, and decides
    what the state holds.)

    The optimiser sees masked gradients and masked parameters, also in what else ``update`` is given
    and in the arguments and results of functions among that (``value_fn``, ``grad_fn``,
    ``obj_fn``). In its state, each entry that belongs to a pruned weight is what ``init`` makes of
    zero weights, so that neither moments nor copies of the weights outlive a mask that has
    changed. Such entries are found by path and shape: arrays of the state that lie at the path of a
    parameter and have its shape, maybe behind other axes. Others (factored or flattened moments)
    are left alone; but moments that GaLore projects to that very shape are taken for such.

    The update of a pruned weight is minus its value, which also zeroes weights that a new mask
    prunes (finite ones: ``x - x`` is NaN for the others, use ``apply_masks`` on those). Updates
    have a dtype that holds their parameters exactly, even where gradients are of less precision:
    wrappers that insist on the gradients' dtype (``apply_if_finite``) then belong inside this one.

    Args:
        optimizer: any Optax transformation.
        masks: the mask of every update that is given none, such as those of Flax's
            ``TrainState.apply_gradients``. Compiled programs hold it as a constant.

    Returns:
        A transformation with ``update(updates, state, params, *, masks, **extra)``: ``params`` is
        required, ``masks`` is a mask of their treedef and may change from step to step.
        ``params`` may hold several copies of that tree, as ``optax.LookaheadParams`` does, or a
        part of it, as within ``optax.masked``.

    Raises:
        ValueError: if ``optimizer`` is no transformation; by ``update``, if it has no parameters or
            no mask, or a parameter has none.

    Examples:
        >>> optimizer = keep_pruned_zero(optax.sgd(0.5))
        >>> params, masks = {"w": jnp.ones(2)}, {"w": jnp.array([1.0, 0.0])}
        >>> state = optimizer.init(params)
        >>> updates, state = optimizer.update(params, state, params, masks=masks)
        >>> print(optax.apply_updates(params, updates)["w"])
        [0.5 0. ]
    """
    if not all(callable(getattr(optimizer, name, None)) for name in ("init", "update")):
        raise ValueError(
            "optimizer: expected an Optax transformation, as in "
            "keep_pruned_zero(optax.adam(1e-3), masks=masks), "
            f"got {type(optimizer).__name__}"
        )
    # MultiSteps is no transformation by its type, but has the same two functions.
    inner = optax.with_extra_args_support(cast(optax.GradientTransformation, optimizer))
    default_masks = masks

    def update(
        updates: PyTree,
        state: PyTree,
        params: PyTree | None = None,
        *,
        masks: PyTree | None = None,
        **extra: Any,
    ) -> tuple[PyTree, PyTree]:
        if params is None:
            raise ValueError("params: expected the current parameters, got None")
        masks = default_masks if masks is None else masks
        if masks is None:
            raise ValueError(
                "masks: expected some here or when the optimiser was wrapped, got None"
            )
        by_path = leaves_by_path(masks)

        def masked_leaf(path: Path, leaf: jax.Array) -> jax.Array:
            return _masked(leaf, _mask_at(by_path, path))

        def apply(tree: PyTree) -> PyTree:
            return jax.tree_util.tree_map_with_path(masked_leaf, tree)

        def update_leaf(path: Path, update: jax.Array, param: jax.Array) -> jax.Array:
            return _to_zero(update, param, _mask_at(by_path, path))

        def apply_where_known(value: Any) -> Any:
            """Masks what is shaped as the gradients are, and the functions of such trees."""
            if callable(value):
                return _masked_function(value, apply_where_known)
            return apply(value) if _form(value) == form else value

        form = _form(updates)
        weights = apply(params)
        state = _with_initial_entries(state, inner.init(weights), params, by_path)
        extra = {name: apply_where_known(value) for name, value in extra.items()}
        updates, state = inner.update(apply(updates), state, weights, **extra)
        return jax.tree_util.tree_map_with_path(update_leaf, updates, params), state

    return optax.GradientTransformationExtraArgs(inner.init, update)


def _form(tree: PyTree) -> tuple[object, list[tuple[int, ...]]]:
    """What two trees share that hold arrays of the same shapes at the same places."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]
    return cast(object, jax.tree.structure(tree)), shapes


def _mask_at(masks: dict[Path, jax.Array], path: Path) -> jax.Array:
    """The mask at a path, or at the longest end of it that has one."""
    path = unboxed(path)
    for start in range(len(path) + 1):
        if path[start:] in masks:
            return masks[path[start:]]
    raise ValueError(f"masks: expected one at {jax.tree_util.keystr(path)}, which has none")


def _masked(leaf: jax.Array, mask: jax.Array) -> jax.Array:
    return jnp.where(jnp.broadcast_to(mask != 0, leaf.shape), leaf, jnp.zeros_like(leaf))


def _to_zero(update: jax.Array, param: jax.Array, mask: jax.Array) -> jax.Array:
    dtype = jnp.promote_types(update.dtype, param.dtype)
    kept = jnp.broadcast_to(mask != 0, param.shape)
    return jnp.where(kept, update.astype(dtype), -param.astype(dtype))


def _masked_function(
    function: Callable[..., Any], apply: Callable[[Any], Any]
) -> Callable[..., Any]:
    @functools.wraps(function)  # Optax looks at the names of their arguments
    def masked(*args: Any, **kwargs: Any) -> Any:
        kwargs = {name: apply(value) for name, value in kwargs.items()}
        return apply(function(*(apply(value) for value in args), **kwargs))

    return masked


def _with_initial_entries(
    state: PyTree, initial: PyTree, params: PyTree, masks: dict[Path, jax.Array]
) -> PyTree:
    """The state with the entries of pruned weights as they are in ``initial``."""
    shapes = {path: p.shape for path, p in leaves_by_path(params).items() if p.ndim}
    start = leaves_by_path(initial)

    def reset(path: Path, leaf: Any) -> Any:
        path = unboxed(path)
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) or path not in start:
            return leaf
        for begin in range(len(path) + 1):
            shape = shapes.get(path[begin:])
            if shape is not None and leaf.shape[-len(shape) :] == shape:
                kept = jnp.broadcast_to(_mask_at(masks, path[begin:]) != 0, shape)
                kept = jnp.broadcast_to(kept, leaf.shape)
                return jnp.where(kept, leaf, start[path].astype(leaf.dtype))
        return leaf

    return jax.tree_util.tree_map_with_path(reset, state)
