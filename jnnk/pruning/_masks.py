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
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jnnk.pruning._conv_leaves import PyTree, conv_kernels, leaf_path, other_kernels
from jnnk.pruning._masked_optimizer import keep_pruned_zero
from jnnk.pruning._scores import kernel_magnitudes, kernel_scores, parse_mode
from jnnk.pruning._selection import (
    above_threshold,
    check_share,
    contributes,
    keep_largest,
    num_pruned,
)

__all__ = [
    "SCOPES",
    "PyTree",
    "apply_masks",
    "conv_kernels",
    "keep_pruned_zero",
    "layer_scores",
    "leaf_path",
    "make_masks",
    "masks_from_layers",
]

SCOPES = ("filter", "layer", "network")


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
        shape = (1, 1, *leaf.shape[2:]) if name in kernels else ()
        return jnp.ones(shape, jnp.float32)

    return jax.tree_util.tree_map_with_path(mask_of, params)


def make_masks(
    params: PyTree,
    *,
    criterion: str | Mapping[str, jax.Array],
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
      their kernels' scores, within each layer or the network. The number pruned is rounded down,
      exactly (`selection.num_pruned`). The share is of all kernels in the scope, those that
      ``previous`` pruned included, so schedules compose with earlier masks without compounding.

    The authors' modes imply their selection: ``criterion="det_contrib"`` reads ``threshold`` as a
    contribution, ``"weight_sorted_kernels"`` is a keep-rate with scope ``"filter"``, and
    ``"weight_sorted_neurons"`` one of whole filters in each layer, both with the authors' count:
    ``int(n * (1.0 - keep_rate))``, which rounding can make one less.

    Scores of one's own (such as ``taylor.taylor_scores``) may stand in place of the name of a
    criterion. A threshold is then compared with them as they are.

    A kernel with a weight that is not finite scores NaN, which ranks lowest and reaches no
    threshold: it is pruned first. In the sum of a filter it counts as zero.

    Args:
        params: pytree of parameters; `conv_leaves.conv_kernels` says which leaves are taken for
            conv kernels.
        criterion: a key of ``conv_scores.CRITERIA`` or one of the authors' modes; or the scores
            themselves, not negative: path of a kernel -> ``(Cin, Cout)``, or ``(Cout,)`` with
            ``whole_filters``, of every kernel to prune.
        threshold: see above, finite and not negative.
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
            or the scope, a share is outside [0, 1], a threshold is negative or not finite, scores
            are missing or of another shape, or ``include`` matches no conv kernel.

    Warns:
        UserWarning: naming the leaves that may hold convolutions and are left whole, because they
            are not told to be kernels of 2D convolutions.

    Examples:
        >>> kernel = jnp.stack([2 * jnp.eye(3), jnp.eye(3) / 8], -1)[:, :, None]
        >>> params = {"conv": {"kernel": kernel, "bias": jnp.ones(2)}}
        >>> masks = make_masks(params, criterion="spectral_radius", keep_rate=0.5)
        >>> print(masks["conv"]["kernel"].shape, masks["conv"]["kernel"][0, 0])
        (1, 1, 1, 2) [[1. 0.]]
    """
    name, mode = ("scores", None) if isinstance(criterion, Mapping) else parse_mode(criterion)
    if mode == "contrib" and contribution is None:
        threshold, contribution = None, threshold
    if mode in ("kernels", "neurons"):
        scope = scope or ("filter" if mode == "kernels" else "layer")
        whole_filters = whole_filters or mode == "neurons"
    _check_selection(criterion, mode, threshold, contribution, keep_rate, scope, whole_filters)
    scope = scope or "network"

    kernels = _chosen_kernels(params, include, exclude, pointwise)
    alive = {path: jnp.ones(kernel.shape[2:], bool) for path, kernel in kernels.items()}
    if previous is not None:
        previous = jax.tree.map(_where_usable, previous, params)
        earlier = conv_kernels(previous)
        alive = {path: earlier[path][0, 0] != 0 for path in kernels}

    if isinstance(criterion, Mapping):
        scores = {
            path: _where_usable(_given_scores(criterion, path, kernel, whole_filters), kernel)
            for path, kernel in kernels.items()
        }
    else:
        # Not under one jit with the selection: XLA would put the layers together again in every
        # step.
        raw = contribution is not None or whole_filters
        score = kernel_scores if raw else kernel_magnitudes
        scores = layer_scores(kernels, name, score=score, key=key)
    if threshold is not None:
        keep = _select_by_value(scores, alive, threshold, above_threshold)
    elif contribution is not None:
        keep = _select_by_value(scores, alive, contribution, contributes)
    else:
        count = _authors_num_pruned if mode in ("kernels", "neurons") else num_pruned
        counts = _counts(kernels, keep_rate, scope, whole_filters, count)
        keep = _select_by_rank(scores, alive, counts, scope, whole_filters)
    masks = masks_from_layers(params, keep)
    return masks if previous is None else jax.tree.map(jnp.minimum, masks, previous)


def apply_masks(params: PyTree, masks: PyTree) -> PyTree:
    """Set pruned weights to exactly +0, whatever they were (NaN, infinity and -0 included).

    Args:
        params: pytree of arrays.
        masks: pytree with the same treedef, each leaf broadcastable to its parameter. It may lie on
            other devices than ``params``.

    Returns:
        ``params`` with pruned entries zero; dtypes unchanged.

    Examples:
        >>> print(apply_masks({"w": jnp.array([3.0, jnp.nan])}, {"w": jnp.array([1.0, 0.0])})["w"])
        [3. 0.]
    """
    return _apply_masks(params, jax.tree.map(_where_usable, masks, params))


@jax.jit
def _apply_masks(params: PyTree, masks: PyTree) -> PyTree:
    def apply(param: jax.Array, mask: jax.Array) -> jax.Array:
        kept = jnp.broadcast_to(mask != 0, param.shape)
        return jnp.where(kept, param, jnp.zeros_like(param))

    return jax.tree.map(apply, params, masks)


def _where_usable(value: jax.Array, beside: jax.Array) -> jax.Array | np.ndarray:
    """An array that can be computed with beside another: off the devices, if they differ."""
    for each in (value, beside):
        if isinstance(each, jax.core.Tracer) or not isinstance(each, jax.Array):
            return value
    if (
        value.committed
        and beside.committed
        and value.sharding.device_set != beside.sharding.device_set
    ):
        return np.asarray(value)
    return value


def _check_selection(
    criterion: str | Mapping[str, jax.Array],
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
    is_known = not isinstance(given[names[0]], jax.core.Tracer)
    if is_known and threshold is not None and not 0 <= threshold < math.inf:
        raise ValueError(f"threshold: expected a finite number of 0 or more, got {threshold!r}")
    if is_known and contribution is not None:
        check_share("contribution", contribution)
    if scope is not None and scope not in SCOPES:
        raise ValueError(f"scope: expected one of {', '.join(SCOPES)}, got {scope!r}")
    if keep_rate is None and (scope is not None or whole_filters):
        raise ValueError(f"scope and whole_filters go with keep_rate, got {names[0]}")
    if whole_filters and scope == "filter":
        raise ValueError(
            "scope: whole filters are ranked within 'layer' or 'network', got 'filter'"
        )


def _chosen_kernels(
    params: PyTree,
    include: str | Sequence[str],
    exclude: str | Sequence[str],
    pointwise: bool,
) -> dict[str, jax.Array]:
    """The conv kernels to prune, by path; warns of what may be some and is left whole."""
    left_out = {
        path: shape
        for path, shape in other_kernels(params).items()
        if _matches(path, include) and not _matches(path, exclude)
    }
    if left_out:
        named = ", ".join(f"{path} {shape}" for path, shape in left_out.items())
        warnings.warn(
            f"not pruned, since they do not look like kernels (h, w, Cin, Cout) of 2D "
            f"convolutions: {named}",
            stacklevel=3,
        )
    convolutions = conv_kernels(params)
    if not convolutions:
        raise ValueError(
            "params: no conv kernel is found in a tree of this form: expected leaves named "
            f"'kernel' of shape (h, w, Cin, Cout), as Flax has them, got {_first_leaves(params)}"
        )
    chosen = {
        path: kernel
        for path, kernel in convolutions.items()
        if _matches(path, include)
        and not _matches(path, exclude)
        and (pointwise or kernel.shape[:2] != (1, 1))
    }
    if not chosen:
        raise ValueError(f"include: no conv kernel matches {include!r} without {exclude!r}")
    return chosen


def _first_leaves(params: PyTree) -> str:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    named = [f"{leaf_path(path)!r} {jnp.shape(leaf)}" for path, leaf in leaves[:4]]
    return ", ".join(named) + (", ..." if len(leaves) > 4 else "") or "no leaves"


def _given_scores(
    scores: Mapping[str, jax.Array], path: str, kernel: jax.Array, whole_filters: bool
) -> jax.Array:
    """Scores of one layer as given, checked."""
    if path not in scores:
        raise ValueError(
            f"criterion: expected scores of {path!r}, got those of {', '.join(scores)}"
        )
    shape = jnp.shape(scores[path])
    if shape != kernel.shape[2:] and not (whole_filters and shape == kernel.shape[3:]):
        raise ValueError(
            f"criterion: expected scores {kernel.shape[2:]} at {path!r}, got shape {shape}"
        )
    return scores[path]


def _matches(path: str, patterns: str | Sequence[str]) -> bool:
    patterns = [patterns] if isinstance(patterns, str) else patterns
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def _authors_num_pruned(count: int, keep_rate: float) -> int:
    num_pruned(count, keep_rate)  # refuses what is no share
    return int(count * (1.0 - float(keep_rate)))


def _counts(
    kernels: Mapping[str, jax.Array],
    keep_rate: float,
    scope: str,
    whole_filters: bool,
    count: Callable[[int, float], int],
) -> dict[str, int]:
    """Numbers to prune: by layer (in each filter, if that is the scope), or under "network"."""
    axes = slice(2, 3) if scope == "filter" else slice(2, 4)
    axes = slice(3, 4) if whole_filters else axes
    sizes = {path: math.prod(kernel.shape[axes]) for path, kernel in kernels.items()}
    if scope == "network":
        sizes = {"network": sum(sizes.values())}
    return {name: count(size, keep_rate) for name, size in sizes.items()}


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
        # Given scores of whole filters have one axis.
        ranked = {
            path: jnp.nansum(jnp.where(alive[path], scores[path], 0), axis=0)
            if scores[path].ndim == 2
            else jnp.where(alive[path].any(axis=0), scores[path], 0)
            for path in scores
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
        path: jnp.broadcast_to(parts[path].reshape(r.shape), alive[path].shape)
        for path, r in ranked.items()
    }


def _split(x: jax.Array, sizes: Sequence[int], axis: int = 0) -> list[jax.Array]:
    """Cut an array into pieces of the given sizes."""
    return jnp.split(x, list(itertools.accumulate(sizes))[:-1], axis=axis)
