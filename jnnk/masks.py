"""Masks over the kernels of a network: made from scores, applied, kept through training.

A mask is a pytree with the treedef of the parameters: float32 ``(1, 1, Cin, Cout)`` of zeros and
ones at each convolution kernel ``(h, w, Cin, Cout)``, a float32 scalar 1 at every other leaf.
Numbers and not booleans, so that ``params * masks`` is well-typed under strict promotion; shapes
depend on the parameters alone, so that a mask passed as an argument of a jitted function never
recompiles it.
"""

import fnmatch
import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jnnk.conv_scores import kernel_magnitudes, kernel_scores, parse_mode
from jnnk.selection import above_threshold, contributes, keep_largest, num_pruned

PyTree = Any
SCOPES = ("filter", "layer", "network")


def leaf_path(path: Sequence[Any]) -> str:
    """Name of a leaf, such as ``"layer1_0/conv1/kernel"``, from its JAX key path."""
    return jax.tree_util.keystr(tuple(path), simple=True, separator="/")


def is_conv_kernel(path: str, leaf: jax.Array) -> bool:
    """Whether a leaf holds the weights of a 2D convolution: named ``kernel``, of four axes."""
    return path.rsplit("/", 1)[-1] == "kernel" and jnp.ndim(leaf) == 4


def conv_kernels(params: PyTree) -> dict[str, jax.Array]:
    """The convolution kernels of a network.

    Args:
        params: pytree of parameters.

    Returns:
        Path -> weights ``(h, w, Cin, Cout)``, in the tree's order.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    named = ((leaf_path(path), leaf) for path, leaf in leaves)
    return {path: leaf for path, leaf in named if is_conv_kernel(path, leaf)}


def masks_from_layers(params: PyTree, layers: Mapping[str, jax.Array]) -> PyTree:
    """Lay out masks of single layers as a mask of the network.

    Args:
        params: pytree of parameters.
        layers: path of a conv kernel -> ``(Cin, Cout)``, true where kept. Layers left out are kept
            whole.

    Returns:
        A mask with the treedef of ``params``.

    Raises:
        ValueError: if a path is not that of a conv kernel, or its shape differs.
    """
    kernels = conv_kernels(params)
    for path, keep in layers.items():
        expected = kernels[path].shape[2:] if path in kernels else None
        if jnp.shape(keep) != expected:
            what = f"shape {expected}" if expected else f"one of {', '.join(kernels)}"
            raise ValueError(f"layers: {path!r}: expected {what}, got shape {jnp.shape(keep)}")

    def mask_of(path: Sequence[Any], leaf: jax.Array) -> jax.Array:
        name = leaf_path(path)
        if name in layers:
            return jnp.asarray(layers[name], jnp.float32)[None, None]
        shape = (1, 1, *leaf.shape[2:]) if is_conv_kernel(name, leaf) else ()
        return jnp.ones(shape, jnp.float32)

    return jax.tree_util.tree_map_with_path(mask_of, params)


def make_masks(
    params: PyTree,
    *,
    criterion: str,
    threshold: float | None = None,
    contribution: float | None = None,
    keep_rate: float | None = None,
    scope: str | None = None,
    whole_filters: bool = False,
    include: str | Sequence[str] = "*",
    exclude: str | Sequence[str] = (),
    pointwise: bool = False,
    key: jax.Array | None = None,
    previous: PyTree | None = None,
) -> PyTree:
    """Choose the kernels, or the filters, of a network to keep.

    Give exactly one selection:

    - ``threshold``: keep a kernel whose score reaches it. It is in the unit of the weights: ``det``
      is compared with ``threshold ** n`` and ``det_gram`` with ``threshold ** 2n``.
    - ``contribution``: keep a kernel that holds at least this share of its filter's summed score.
    - ``keep_rate``: keep this share of the kernels by rank, within each filter, each layer, or the
      whole network (``scope``); or, with ``whole_filters``, this share of the filters by the sum of
      their kernels' scores, within each layer or the network. The number pruned is rounded down.
      The share is of all kernels in the scope, those that ``previous`` pruned included, so
      schedules compose with earlier masks without compounding.

    The authors' modes imply their selection: ``criterion="det_contrib"`` reads ``threshold`` as a
    contribution, ``"weight_sorted_kernels"`` is a keep-rate with scope ``"filter"``, and
    ``"weight_sorted_neurons"`` one of whole filters in each layer.

    A kernel with a weight that is not finite scores NaN, which ranks lowest and reaches no
    threshold: it is pruned first. In the sum of a filter it counts as zero.

    Args:
        params: pytree of parameters; leaves named ``kernel`` with four axes are conv kernels.
        criterion: a key of ``conv_scores.CRITERIA`` or one of the authors' modes.
        threshold: see above.
        contribution: see above, in [0, 1].
        keep_rate: see above, in [0, 1].
        scope: ``"filter"``, ``"layer"`` or ``"network"`` (default), for ``keep_rate`` only.
        whole_filters: keep or prune whole filters, for ``keep_rate`` only.
        include: ``fnmatch`` patterns on paths such as ``"layer1_0/conv1/kernel"``: the layers to
            prune.
        exclude: patterns of the layers to leave whole.
        pointwise: prune 1x1 convolutions too; by default they are left whole.
        key: a PRNG key, for ``random`` only.
        previous: an earlier mask. Its pruned kernels stay pruned, in every layer, and count as zero
            in scores.

    Returns:
        A mask with the treedef of ``params``; layers left out keep all that ``previous`` kept.

    Raises:
        ValueError: if not exactly one selection is given, one that does not go with the criterion
            or the scope, a share is outside [0, 1], or ``include`` matches no conv kernel.

    Examples:
        >>> kernel = jnp.stack([2 * jnp.eye(3), jnp.eye(3) / 8], -1)[:, :, None]
        >>> params = {"conv": {"kernel": kernel, "bias": jnp.ones(2)}}
        >>> masks = make_masks(params, criterion="spectral_radius", keep_rate=0.5)
        >>> print(masks["conv"]["kernel"].shape, masks["conv"]["kernel"][0, 0])
        (1, 1, 1, 2) [[1. 0.]]
    """
    name, mode = parse_mode(criterion)
    if mode == "contrib" and contribution is None:
        threshold, contribution = None, threshold
    if mode in ("kernels", "neurons"):
        scope = scope or ("filter" if mode == "kernels" else "layer")
        whole_filters = whole_filters or mode == "neurons"
    _check_selection(criterion, mode, threshold, contribution, keep_rate, scope, whole_filters)
    scope = scope or "network"

    kernels = {
        path: kernel
        for path, kernel in conv_kernels(params).items()
        if _matches(path, include)
        and not _matches(path, exclude)
        and (pointwise or kernel.shape[:2] != (1, 1))
    }
    if not kernels:
        raise ValueError(f"include: no conv kernel matches {include!r} without {exclude!r}")
    alive = {path: jnp.ones(kernel.shape[2:], bool) for path, kernel in kernels.items()}
    if previous is not None:
        alive = {path: conv_kernels(previous)[path][0, 0] != 0 for path in kernels}

    # Not under one jit with the selection: XLA would put the layers together again in every step.
    raw = contribution is not None or whole_filters
    score = kernel_scores if raw else kernel_magnitudes
    scores = layer_scores(kernels, name, score=score, key=key)
    if threshold is not None:
        keep = _select_by_value(scores, alive, threshold, above_threshold)
    elif contribution is not None:
        keep = _select_by_value(scores, alive, contribution, contributes)
    else:
        counts = _counts(kernels, keep_rate, scope, whole_filters)
        keep = _select_by_rank(scores, alive, counts, scope, whole_filters)
    masks = masks_from_layers(params, keep)
    return masks if previous is None else jax.tree.map(jnp.minimum, masks, previous)


@jax.jit
def apply_masks(params: PyTree, masks: PyTree) -> PyTree:
    """Set pruned weights to exactly +0, whatever they were (NaN, infinity and -0 included).

    Args:
        params: pytree of arrays.
        masks: pytree with the same treedef, each leaf broadcastable to its parameter.

    Returns:
        ``params`` with pruned entries zero; dtypes unchanged.

    Examples:
        >>> print(apply_masks({"w": jnp.array([3.0, jnp.nan])}, {"w": jnp.array([1.0, 0.0])})["w"])
        [3. 0.]
    """
    return jax.tree.map(lambda p, m: jnp.where(m != 0, p, jnp.zeros_like(p)), params, masks)


def keep_pruned_zero(
    optimizer: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """Wrap an optimiser so that pruned weights are exactly zero after every update.

    Gradients, parameters and moments are masked before the optimiser sees them, so neither momentum
    nor weight decay moves a pruned weight; the update of a pruned weight is minus its value, which
    also zeroes weights that a new mask prunes (finite ones: ``x - x`` is NaN for the others, use
    ``apply_masks`` on those).

    Args:
        optimizer: any Optax transformation.

    Returns:
        A transformation with ``update(updates, state, params, *, masks, **extra)``: ``params`` is
        required, ``masks`` is a mask of their treedef and may change from step to step.
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def update(
        updates: PyTree, state: PyTree, params: PyTree | None = None, *, masks: PyTree, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        if params is None:
            raise ValueError("params: keep_pruned_zero needs the current parameters, got None")

        def mask_moment(moment: jax.Array, mask: jax.Array, param: jax.Array) -> jax.Array:
            # Factored moments have other shapes than their parameter and no entry per weight.
            return apply_masks(moment, mask) if moment.shape == param.shape else moment

        state = optax.tree_utils.tree_map_params(optimizer, mask_moment, state, masks, params)
        updates, state = optimizer.update(
            apply_masks(updates, masks), state, apply_masks(params, masks), **extra
        )
        updates = jax.tree.map(
            lambda u, p, m: jnp.where(m != 0, u, -p.astype(u.dtype)), updates, params, masks
        )
        return updates, state

    return optax.GradientTransformationExtraArgs(optimizer.init, update)


def _check_selection(
    criterion: str,
    mode: str | None,
    threshold: float | None,
    contribution: float | None,
    keep_rate: float | None,
    scope: str | None,
    whole_filters: bool,
) -> None:
    given = {"threshold": threshold, "contribution": contribution, "keep_rate": keep_rate}
    names = [name for name, value in given.items() if value is not None]
    if len(names) != 1:
        got = " and ".join(names) or "none"
        raise ValueError(f"expected exactly one of {', '.join(given)}; got {got}")
    implied = {"contrib": "contribution", "kernels": "keep_rate", "neurons": "keep_rate"}.get(mode)
    if implied and names[0] != implied:
        raise ValueError(f"criterion: {criterion!r} goes with {implied}, got {names[0]}")
    if contribution is not None and not 0 <= contribution <= 1:
        raise ValueError(f"contribution: expected a share in [0, 1], got {contribution}")
    if scope is not None and scope not in SCOPES:
        raise ValueError(f"scope: expected one of {', '.join(SCOPES)}, got {scope!r}")
    if keep_rate is None and (scope is not None or whole_filters):
        raise ValueError(f"scope and whole_filters go with keep_rate, got {names[0]}")
    if whole_filters and scope == "filter":
        raise ValueError(
            "scope: whole filters are ranked within 'layer' or 'network', got 'filter'"
        )


def _matches(path: str, patterns: str | Sequence[str]) -> bool:
    patterns = [patterns] if isinstance(patterns, str) else patterns
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def _counts(
    kernels: Mapping[str, jax.Array], keep_rate: float, scope: str, whole_filters: bool
) -> dict[str, int]:
    """Numbers to prune: by layer (in each filter, if that is the scope), or under "network"."""
    axes = slice(2, 3) if scope == "filter" else slice(2, 4)
    axes = slice(3, 4) if whole_filters else axes
    sizes = {path: math.prod(kernel.shape[axes]) for path, kernel in kernels.items()}
    if scope == "network":
        sizes = {"network": sum(sizes.values())}
    return {name: num_pruned(size, keep_rate) for name, size in sizes.items()}


def layer_scores(
    kernels: Mapping[str, jax.Array],
    criterion: str,
    *,
    score: Callable[..., jax.Array] = kernel_magnitudes,
    key: jax.Array | None = None,
) -> dict[str, jax.Array]:
    """Scores of every kernel of a network, computed in one batch for each size of kernel.

    Args:
        kernels: layer -> weights ``(h, w, Cin, Cout)``.
        criterion: as in ``kernel_scores``.
        score: ``kernel_magnitudes`` or ``kernel_scores``.
        key: a PRNG key, for ``random`` only.

    Returns:
        Layer -> float32 ``(Cin, Cout)``.
    """
    sizes: dict[tuple[int, int], list[str]] = {}
    for path, kernel in kernels.items():
        sizes.setdefault(kernel.shape[:2], []).append(path)
    scores = {}
    for i, (size, paths) in enumerate(sizes.items()):
        flat = [kernels[path].astype(jnp.float32).reshape(*size, 1, -1) for path in paths]
        size_key = None if key is None else jax.random.fold_in(key, i)
        batch = score(jnp.concatenate(flat, axis=3), criterion, key=size_key)[0]
        for path, part in zip(paths, _split(batch, [f.shape[3] for f in flat]), strict=True):
            scores[path] = part.reshape(kernels[path].shape[2:])
    return {path: scores[path] for path in kernels}


@functools.partial(jax.jit, static_argnames="select")
def _select_by_value(
    scores: Mapping[str, jax.Array],
    alive: Mapping[str, jax.Array],
    value: float,
    select: Callable[[jax.Array, float], jax.Array],
) -> dict[str, jax.Array]:
    return {path: select(jnp.where(alive[path], scores[path], 0), value) for path in scores}


@functools.partial(jax.jit, static_argnames=("scope", "whole_filters"))
def _select_by_rank(
    scores: Mapping[str, jax.Array],
    alive: Mapping[str, jax.Array],
    counts: Mapping[str, int],
    scope: str,
    whole_filters: bool,
) -> dict[str, jax.Array]:
    if whole_filters:
        ranked = {
            path: jnp.nansum(jnp.where(alive[path], scores[path], 0), axis=0) for path in scores
        }
    else:
        ranked = {path: jnp.where(alive[path], scores[path], -jnp.inf) for path in scores}

    if scope == "network":
        columns = {path: r.reshape(-1, 1) for path, r in ranked.items()}
        keep = keep_largest(jnp.concatenate(list(columns.values())), counts[scope])
        parts = dict(zip(ranked, _split(keep, [r.size for r in ranked.values()]), strict=True))
    else:
        columns = {path: r if scope == "filter" else r.reshape(-1, 1) for path, r in ranked.items()}
        # Columns of one length are sorted together: a sort for each layer is slow to compile.
        parts = {}
        for length in sorted({len(column) for column in columns.values()}):
            paths = [path for path, column in columns.items() if len(column) == length]
            together = jnp.concatenate([columns[path] for path in paths], axis=1)
            keep = keep_largest(together, counts[paths[0]])
            widths = [columns[path].shape[1] for path in paths]
            parts |= dict(zip(paths, _split(keep, widths, axis=1), strict=True))
    return {
        path: jnp.broadcast_to(parts[path].reshape(r.shape), scores[path].shape)
        for path, r in ranked.items()
    }


def _split(x: jax.Array, sizes: Sequence[int], axis: int = 0) -> list[jax.Array]:
    """Cut an array into pieces of the given sizes."""
    return jnp.split(x, list(itertools.accumulate(sizes))[:-1], axis=axis)
