"""Masks over the kernels of a network: made from scores, and applied.

A mask is a pytree with the treedef of the parameters: float32 zeros and ones at each convolution
kernel, in its layout with 1 for the size of its positions (``(1, 1, Cin, Cout)`` at Flax's ``(h, w,
Cin, Cout)``), and a float32 scalar 1 at every other leaf.
Numbers and not booleans, so that ``params * masks`` is well-typed under strict promotion; shapes
depend on the parameters alone, so that a mask passed as an argument of a jitted function never
recompiles it.
"""

import fnmatch
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jaxtyping import Real, Shaped

from jnnk._core import typed_jax
from jnnk._core.arrays import ArrayLike
from jnnk.network import Network
from jnnk.network._names import PyTree, leaf_path, named_leaves
from jnnk.pruning._conv_leaves import ConvLeaf, conv_leaves, other_kernels
from jnnk.pruning._kept import kept_kernels
from jnnk.pruning._scores import kernel_magnitudes, kernel_scores, layer_scores
from jnnk.pruning._selection import KeepRate, Selection


def masks_from_layers(
    params: PyTree,
    layers: Mapping[str, Shaped[ArrayLike, "_Cin _Cout"]],
    *,
    network: Network | None = None,
) -> PyTree:
    """Mask of a network from masks of single layers.

    Args:
        params: pytree of parameters.
        layers: path of a conv kernel -> ``(Cin, Cout)``, true where kept. Layers left out are kept
            whole.
        network: as `jnnk.network.read` reads it; without it kernels are told as by `make_masks`.

    Returns:
        A mask with the treedef of ``params``.

    Raises:
        ValueError: if a path is not that of a conv kernel, or its shape differs.
    """
    convs = conv_leaves(params, network=network)
    for path, keep in layers.items():
        expected = convs[path].kernel_shape[2:] if path in convs else None
        if jnp.shape(keep) != expected:
            what = f"shape {expected}" if expected else f"one of {', '.join(convs)}"
            raise ValueError(f"layers: {path!r}: expected {what}, got shape {jnp.shape(keep)}")

    def mask_of(path: Sequence[Any], leaf: jax.Array) -> jax.Array:
        name = leaf_path(path)
        if name not in convs:
            return jnp.ones((), jnp.float32)
        conv = convs[name]
        return conv.mask(layers[name] if name in layers else np.ones(conv.kernel_shape[2:]))

    return jax.tree_util.tree_map_with_path(mask_of, params)


def make_masks(
    params: PyTree,
    *,
    criterion: str | Mapping[str, Real[ArrayLike, "..."]],
    selection: Selection | None = None,
    keep_rate: float | None = None,
    include: str | Sequence[str] = "*",
    exclude: str | Sequence[str] = (),
    pointwise: bool = False,
    key: Array | None = None,
    previous: PyTree | None = None,
    network: Network | None = None,
) -> PyTree:
    """Mask of a network: 1 for the kernels, or filters, that are kept, 0 for those pruned.

    A criterion scores the kernels, and a selection decides by the scores: `Threshold`,
    `Contribution` or `KeepRate`. ``keep_rate=r`` is short for ``selection=KeepRate(r)``, by rank
    over the whole network. `authors_mode` translates the modes of the authors' own code.

    Scores of one's own (such as `taylor_scores`) may stand in place of the name of a criterion. A
    threshold is then compared with them as they are.

    A kernel with a weight that is not finite scores NaN, which ranks lowest and reaches no
    threshold: it is pruned first. In the sum of a filter it counts as zero.

    Args:
        params: pytree of parameters, or of all variables with ``network``. Without it, leaves
            named ``kernel`` of shape ``(h, w, Cin, Cout)`` are taken for kernels of 2D
            convolutions, unless their layer's name or what lies beside them tells otherwise.
        criterion: a key of ``CRITERIA``; or the scores themselves, not negative: path of a
            kernel -> ``(Cin, Cout)``, or ``(Cout,)`` if whole filters are selected, of every kernel
            to prune.
        selection: what to keep by the scores.
        keep_rate: share of the kernels kept, in place of ``selection``.
        include: ``fnmatch`` patterns on paths such as ``"layer1_0/conv1/kernel"``: the layers to
            prune.
        exclude: patterns of the layers to leave whole.
        pointwise: prune 1x1 convolutions too; by default they are left whole.
        key: a PRNG key, for ``random`` only.
        previous: an earlier mask. Its pruned kernels stay pruned, in every layer, and count as zero
            in scores.
        network: as `jnnk.network.read` reads it. It tells which leaves are kernels, and their
            layout: of Equinox, Haiku or plain functions, of any number of dimensions, grouped,
            transposed, stacked by ``scan``. They are looked at as ``(h, w, Cin, Cout)``: see
            `jnnk.network.Conv` for the axes; of grouped convolutions Cin counts the channels of a
            group; of transposed ones Cin is what they read and Cout what they make, as of others,
            and dilation changes nothing; of one dimension w is 1, of three ``(d, h, w)`` is taken
            as ``(d, h * w)``; the filters of all steps of a scan are one layer's.

    Returns:
        A mask with the treedef of ``params``; layers left out keep all that ``previous`` kept.

    Raises:
        ValueError: if not exactly one of ``selection`` and ``keep_rate`` is given, ``keep_rate`` is
            outside [0, 1], the criterion is unknown, ``random`` has no key, scores are missing or
            of another shape, ``params`` hold no conv kernel or ``include`` matches none.

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
    selection = _the_selection(selection, keep_rate)
    convs = _chosen_convs(params, network, include, exclude, pointwise)
    leaves = named_leaves(params)
    kernels = {path: conv.kernels(leaves[path]) for path, conv in convs.items()}
    alive = {path: jnp.ones(kernel.shape[2:], bool) for path, kernel in kernels.items()}
    if previous is not None:
        previous = jax.tree.map(_where_usable, previous, params)
        earlier = named_leaves(previous)
        alive = {path: conv.keep(earlier[path]) for path, conv in convs.items()}

    # Not under one jit with the selection: XLA would put the layers together again in every step.
    if isinstance(criterion, Mapping):
        scores = _given_scores(criterion, kernels, selection)
    else:
        score = kernel_scores if selection.adds_scores else kernel_magnitudes
        scores = layer_scores(kernels, criterion, score=score, key=key)
    masks = masks_from_layers(params, kept_kernels(selection, scores, alive), network=network)
    return masks if previous is None else jax.tree.map(jnp.minimum, masks, previous)


def _the_selection(selection: Selection | None, keep_rate: float | None) -> Selection:
    if selection is None and keep_rate is not None:
        return KeepRate(keep_rate)
    if selection is None or keep_rate is not None:
        got = "none" if selection is None else "both"
        raise ValueError(f"selection: expected exactly one of selection and keep_rate, got {got}")
    if not isinstance(selection, Selection):
        raise ValueError(
            f"selection: expected Threshold, Contribution or KeepRate, got {selection!r}"
        )
    return selection


def apply_masks(params: PyTree, masks: PyTree) -> PyTree:
    """The parameters with pruned weights exactly +0, whatever they were (NaN and -0 included).

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


@typed_jax.jit
def _apply_masks(params: PyTree, masks: PyTree) -> PyTree:
    def apply(param: jax.Array, mask: jax.Array) -> jax.Array:
        kept = jnp.broadcast_to(mask != 0, param.shape)
        return jnp.where(kept, param, jnp.zeros_like(param))

    return jax.tree.map(apply, params, masks)


def _where_usable(value: ArrayLike, other: ArrayLike) -> ArrayLike:
    """An array that can be combined with another: off the devices, if these differ."""
    if not (_is_placed(value) and _is_placed(other)):
        return value
    if (
        value.committed
        and other.committed
        and value.sharding.device_set != other.sharding.device_set
    ):
        return np.asarray(value)
    return value


def _is_placed(value: object) -> TypeGuard[Array]:
    """Whether it is an array that lies on devices."""
    return isinstance(value, Array) and not isinstance(value, Tracer)


def _chosen_convs(
    params: PyTree,
    network: Network | None,
    include: str | Sequence[str],
    exclude: str | Sequence[str],
    pointwise: bool,
) -> dict[str, ConvLeaf]:
    """The convolutions to prune, by path; warns of what may be some and is left whole."""

    def is_named(path: str) -> bool:
        return _matches(path, include) and not _matches(path, exclude)

    convs = conv_leaves(params, network=network)
    _warn_of_left_out(params, network, is_named)
    if not convs:
        raise ValueError(
            "params: no conv kernel is found in a tree of this form: expected leaves named "
            f"'kernel' of shape (h, w, Cin, Cout), as Flax has them, got {_first_leaves(params)}; "
            "other layouts are told with network=jnnk.network.read(...)"
        )
    chosen = {
        path: conv
        for path, conv in convs.items()
        if is_named(path) and (pointwise or conv.kernel_shape[:2] != (1, 1))
    }
    if not chosen:
        left = "" if pointwise else ", but for 1x1 kernels, which pointwise=True takes in"
        raise ValueError(
            f"include: expected patterns of conv kernels{left}, got {include!r} without {exclude!r}"
        )
    return chosen


def _warn_of_left_out(
    params: PyTree, network: Network | None, is_named: Callable[[str], bool]
) -> None:
    """Warns of what may be a convolution and is left whole."""
    if network is None:
        others = {path: shape for path, shape in other_kernels(params).items() if is_named(path)}
        named = ", ".join(f"{path} {shape}" for path, shape in others.items())
        reason = "they do not look like kernels (h, w, Cin, Cout) of 2D convolutions"
    else:
        named = "; ".join(f"{each.what}: {each.reason}" for each in network.left_out)
        reason = "their kernels are not told by the network's program"
    if named:
        warnings.warn(f"not pruned, since {reason}: {named}", stacklevel=4)


def _first_leaves(params: PyTree) -> str:
    leaves = list(named_leaves(params).items())
    named = [f"{path!r} {jnp.shape(leaf)}" for path, leaf in leaves[:4]]
    return ", ".join(named) + (", ..." if len(leaves) > 4 else "") or "no leaves"


def _given_scores(
    given: Mapping[str, ArrayLike], kernels: Mapping[str, jax.Array], selection: Selection
) -> dict[str, ArrayLike]:
    """The scores that were given of the kernels to prune, checked."""
    of_filters = isinstance(selection, KeepRate) and selection.whole_filters
    scores: dict[str, ArrayLike] = {}
    for path, kernel in kernels.items():
        if path not in given:
            raise ValueError(
                f"criterion: expected scores of {path!r}, got those of {', '.join(given)}"
            )
        shape = jnp.shape(given[path])
        if shape != kernel.shape[2:] and not (of_filters and shape == kernel.shape[3:]):
            raise ValueError(
                f"criterion: expected scores {kernel.shape[2:]} at {path!r}, got shape {shape}"
            )
        scores[path] = _where_usable(given[path], kernel)
    return scores


def _matches(path: str, patterns: str | Sequence[str]) -> bool:
    patterns = [patterns] if isinstance(patterns, str) else patterns
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)
