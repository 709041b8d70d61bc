"""Which channels inside the blocks of a network can go: by redundancy, and by what others use.

Removed are channels between two layers, where the wiring says who reads them: the filter's kernels
and the kernels that read it are masked, so that `jnnk.pruning.compact` drops it whole. With one
keep-rate for every layer, all criteria compare at equal MACs.
"""

import fnmatch
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Real

from jnnk._core.arrays import ArrayLike
from jnnk._core.whole_numbers import whole_number
from jnnk.graphs import NNKGraph
from jnnk.measures import RedundancyCurve, redundancy_curve
from jnnk.network._names import PyTree
from jnnk.pruning._conv_leaves import conv_kernels
from jnnk.pruning._kept import keep_largest
from jnnk.pruning._masks import masks_from_layers
from jnnk.pruning._scores import kernel_scores
from jnnk.pruning._selection import check_share, num_pruned


@runtime_checkable
class Wiring(Protocol):
    """Where a conv stands in its network, as ``model.convs()`` tells it.

    Attributes:
        conv: path of the conv.
        norm: path of the BatchNorm behind it, or None.
        readers: paths of the layers that read its channels, if they are known.
    """

    conv: str
    norm: str | None
    readers: tuple[str, ...]


class ChannelView(NamedTuple):
    """What a criterion of channels scores: one layer of C filters.

    Attributes:
        kernel: (h, w, Cin, C), weights.
        scale: (C,), scale of the BatchNorm behind it, or None.
        graph: channel-wise NNK graph (leading axis C) of its activations, or None.
        key: PRNG key, or None.
    """

    kernel: Float[Array, "h w Cin C"]
    scale: Float[Array, " C"] | None
    graph: NNKGraph | None
    key: Array | None


def l1_norm(view: ChannelView) -> Array:
    """Sum of absolute weights of each filter (Li et al., ICLR 2017); (C,)."""
    return jnp.abs(view.kernel).sum((0, 1, 2))


def bn_scale(view: ChannelView) -> Array:
    """Absolute BatchNorm scale of each filter (network slimming, Liu et al., ICCV 2017); (C,)."""
    if view.scale is None:
        raise ValueError("bn_scale: this layer has no BatchNorm")
    return jnp.abs(view.scale)


def spectral_radius(view: ChannelView) -> Array:
    """Sum of the spectral radii of each filter's kernels (arXiv 2102.02804); (C,)."""
    return kernel_scores(view.kernel, "spectral_radius").sum(0)


def geometric_median(view: ChannelView) -> Array:
    """Summed distance of each filter to all others (FPGM, He et al., CVPR 2019); (C,).

    Filters near the geometric median of their layer are the ones that others can replace.
    """
    filters = view.kernel.reshape(-1, view.kernel.shape[-1]).T
    squares = jnp.square(filters[:, None] - filters[None]).sum(-1)
    return jnp.sqrt(squares).sum(1)


def random(view: ChannelView) -> Array:
    """A number uniform in [0, 1) for each filter; (C,)."""
    if view.key is None:
        raise ValueError("random: needs a PRNG key")
    return jax.random.uniform(view.key, view.kernel.shape[-1:])


def redundancy(view: ChannelView) -> Array:
    """Place in the greedy choice of channels that cover the layer's NNK neighbourhoods; (C,).

    C for the channel chosen first, 1 for the one that adds least to all before it; see
    `jnnk.measures.redundancy_curve`.
    """
    return _places(_curve(view).order)


def weighted_redundancy(view: ChannelView) -> Array:
    """As `redundancy`, each channel's gain weighted by its `spectral_radius`; (C,)."""
    return _places(_curve(view, spectral_radius(view)).order)


CHANNEL_CRITERIA: dict[str, Callable[[ChannelView], Array]] = {
    "redundancy": redundancy,
    "weighted_redundancy": weighted_redundancy,
    "l1_norm": l1_norm,
    "bn_scale": bn_scale,
    "spectral_radius": spectral_radius,
    "geometric_median": geometric_median,
    "random": random,
}
"""Criterion -> scores of a layer's filters; the largest are kept."""

OF_GRAPHS = ("redundancy", "weighted_redundancy")
"""The criteria that look at the channels' graphs."""


def inner_convs(convs: Iterable[Wiring]) -> list[Wiring]:
    """The convs whose channels are read by known layers alone, such as the first of each block."""
    return [info for info in convs if info.readers]


def channel_masks(
    params: PyTree,
    convs: Iterable[Wiring],
    criterion: str | Mapping[str, Real[ArrayLike, "..."]],
    *,
    keep_rate: float | Mapping[str, float],
    round_to: int = 1,
    graphs: Mapping[str, NNKGraph] | None = None,
    key: Array | None = None,
) -> PyTree:
    """Mask of a network that removes whole channels between two layers.

    Args:
        params: pytree of parameters.
        convs: the network's convs, ``model.convs()``.
        criterion: a key of ``CHANNEL_CRITERIA``; or scores, of which the largest are kept: path of
            an inner conv's kernel -> ``(C,)``, as `taylor_channel_scores` gives them.
        keep_rate: share of the channels kept in every layer; the number pruned is rounded down. Or
            ``fnmatch`` patterns on paths of convs, such as ``"layer1_*/conv1"`` -> keep-rate of
            the layers that match, the first pattern that matches counting; other layers stay whole.
        round_to: the number kept is rounded up to a multiple of it, at most to all: convs of some
            widths cost what the next round one costs.
        graphs: conv -> channel-wise NNK graph of its activations, for the criteria ``OF_GRAPHS``.
        key: PRNG key, for ``"random"``.

    Returns:
        A mask with the treedef of ``params``, without the filters and without the kernels that
        read them; dense readers stay whole.

    Raises:
        ValueError: for an unknown criterion, a keep-rate outside [0, 1], a pattern that matches no
            inner conv, or what the criterion looks at missing.
    """
    if isinstance(criterion, str) and criterion not in CHANNEL_CRITERIA:
        known = ", ".join(CHANNEL_CRITERIA)
        raise ValueError(f"criterion: expected one of {known}, got {criterion!r}")
    round_to = whole_number("round_to", round_to)
    inner = inner_convs(convs)
    rates = _rates(keep_rate, [info.conv for info in inner])
    kernels = conv_kernels(params)
    layers: dict[str, Array] = {}
    for number, info in enumerate(inner):
        view = ChannelView(
            kernel=kernels[f"{info.conv}/kernel"],
            scale=None if info.norm is None else _at(params, info.norm)["scale"],
            graph=(graphs or {}).get(info.conv),
            key=None if key is None else jax.random.fold_in(key, number),
        )
        scores = _scores(criterion, info.conv, view)
        pruned = num_pruned(len(scores), rates[info.conv])
        # Fewer pruned, so that a multiple is kept.
        pruned = max(0, pruned - (pruned - len(scores)) % round_to)
        keep = keep_largest(scores[:, None], pruned)[:, 0]
        for path, axis in ((info.conv, 1), *((reader, 0) for reader in info.readers)):
            name = f"{path}/kernel"
            if name in kernels:
                before = layers.get(name, jnp.ones(kernels[name].shape[2:], bool))
                layers[name] = before & (keep[None] if axis else keep[:, None])
    return masks_from_layers(params, layers)


def _rates(keep_rate: float | Mapping[str, float], convs: list[str]) -> dict[str, float]:
    """The keep-rate of every conv."""
    by_pattern = dict(keep_rate) if isinstance(keep_rate, Mapping) else {"*": keep_rate}
    rates = dict.fromkeys(convs, 1.0)
    for pattern, rate in reversed(by_pattern.items()):
        check_share("keep_rate", rate)
        matched = fnmatch.filter(convs, pattern)
        if not matched and isinstance(keep_rate, Mapping):
            known = ", ".join(convs)
            raise ValueError(f"keep_rate: {pattern!r} matches no inner conv; there are {known}")
        rates |= dict.fromkeys(matched, rate)
    return rates


def _scores(criterion: str | Mapping[str, ArrayLike], conv: str, view: ChannelView) -> Array:
    if isinstance(criterion, str):
        if criterion in OF_GRAPHS and view.graph is None:
            raise ValueError(f"graphs: {criterion!r} needs one of {conv!r}")
        return CHANNEL_CRITERIA[criterion](view)
    path, shape = f"{conv}/kernel", view.kernel.shape[3:]
    if path not in criterion or jnp.shape(criterion[path]) != shape:
        found = f"shape {jnp.shape(criterion[path])}" if path in criterion else "none"
        raise ValueError(f"criterion: expected scores {shape} of {path!r}, got {found}")
    return jnp.asarray(criterion[path])


def _at(params: PyTree, path: str) -> PyTree:
    for name in path.split("/"):
        params = params[name]
    return params


def _curve(view: ChannelView, weights: Array | None = None) -> RedundancyCurve:
    if view.graph is None:
        raise ValueError("redundancy: needs the channels' graphs")
    return redundancy_curve(view.graph, weights=weights)


def _places(order: Array) -> Array:
    size = order.shape[0]
    return jnp.zeros(size).at[order].set(jnp.arange(size, 0, -1).astype(jnp.float32))
