"""Which whole channels of a network to remove: by redundancy, and by other criteria.

The network tells which channels are coupled and what reads them: the filters' kernels and the
kernels that read them are masked, so that `jnnk.compact` drops the channels whole. With one
keep-rate for every group, all criteria compare at equal MACs.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jaxtyping import Float, Real

from jnnk._core.arrays import ArrayLike
from jnnk._core.patterns import matching
from jnnk._core.whole_numbers import whole_number
from jnnk.graphs import NNKGraph
from jnnk.measures import RedundancyCurve, redundancy_curve
from jnnk.network import Conv, Group, Network, Slices
from jnnk.network._names import Path, PyTree, leaf_path, leaves_by_path
from jnnk.pruning._conv_leaves import ConvLeaf, path_in
from jnnk.pruning._kept import keep_largest
from jnnk.pruning._masks import masks_from_layers
from jnnk.pruning._scores import kernel_scores
from jnnk.pruning._selection import check_share, num_pruned


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
        raise ValueError("bn_scale: expected layers with BatchNorm, got one without")
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
        raise ValueError("key: expected a PRNG key for the criterion 'random', got None")
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


def prunable_groups(network: Network, *, streams: bool = False) -> dict[str, Group]:
    """The channels of a network that can be removed whole.

    Args:
        network: as `jnnk.network.read` reads it.
        streams: also those that several convolutions make, such as the channels of residual
            streams. Without them, all filters of one convolution that others read.

    Returns:
        Name of the first convolution that makes them -> group. A convolution whose filters are of
        several groups, as where zeros widen a stream, names the first, and ``name#2`` the next.
    """
    found: dict[str, Group] = {}
    for group in network.groups():
        if group.reason is not None or group.size < 2 or not group.producers:
            continue
        name = group.producers[0]
        if streams or _is_inner(network, group):
            places = [name, *(f"{name}#{number}" for number in range(2, len(found) + 3))]
            found[next(place for place in places if place not in found)] = group
    order = {conv.name: place for place, conv in enumerate(network.convs)}
    return dict(sorted(found.items(), key=lambda item: order[item[0].partition("#")[0]]))


def _is_inner(network: Network, group: Group) -> bool:
    """Whether a group is all filters of one convolution."""
    filters = network[group.producers[0]].output_shape[-1]
    return len(group.producers) == 1 and group.size == filters


def channel_masks(
    params: PyTree,
    network: Network,
    criterion: str | Mapping[str, Real[ArrayLike, "..."]],
    *,
    keep_rate: float | Mapping[str, float],
    streams: bool = False,
    round_to: int = 1,
    graphs: Mapping[str, NNKGraph] | None = None,
    key: Array | None = None,
) -> PyTree:
    """Mask of a network that removes whole channels.

    Coupled channels are removed together; their score is the sum over the convolutions
    that make them.

    Args:
        params: pytree of parameters, or of all variables.
        network: as `jnnk.network.read` reads it.
        criterion: a key of ``CHANNEL_CRITERIA``; or scores, of which the largest are kept: path of
            a convolution's kernel -> ``(C,)``, as `taylor_channel_scores` gives them.
        keep_rate: share of the channels kept in every group; the number pruned is rounded down. Or
            ``fnmatch`` patterns on the names that `prunable_groups` gives, such as
            ``"layer1_*/conv1"`` -> keep-rate of those that match, the first pattern that matches
            counting; others stay whole.
        streams: whether channels of residual streams and the like can go too, see
            `prunable_groups`.
        round_to: the number kept is rounded up to a multiple of it, at most to all: convs of some
            widths cost what the next round one costs.
        graphs: convolution -> channel-wise NNK graph of its activations, for the criteria
            ``OF_GRAPHS``.
        key: PRNG key, for ``"random"``.

    Returns:
        A mask with the treedef of ``params``, without the filters and without the kernels that
        read them; what dense layers read stays whole.

    Raises:
        ValueError: for an unknown criterion, a keep-rate outside [0, 1], a pattern that matches
            none of the groups, or what the criterion looks at missing.
    """
    if isinstance(criterion, str) and criterion not in CHANNEL_CRITERIA:
        known = ", ".join(CHANNEL_CRITERIA)
        raise ValueError(f"criterion: expected one of {known}, got {criterion!r}")
    round_to = whole_number("round_to", round_to)
    groups = prunable_groups(network, streams=streams)
    rates = _rates(keep_rate, list(groups))
    leaves = leaves_by_path(params)
    convs = {conv.path: conv for conv in network.convs}
    layers: dict[str, Any] = {}
    for number, (name, group) in enumerate(groups.items()):
        pruned = num_pruned(group.size, rates[name])
        # Fewer pruned, so that a multiple is kept.
        pruned = max(0, pruned - (pruned - group.size) % round_to)
        if not pruned:
            continue
        folded = None if key is None else jax.random.fold_in(key, number)
        scores = _group_scores(leaves, network, group, criterion, graphs, folded)
        keep = keep_largest(scores[:, None], pruned)[:, 0]
        if not isinstance(keep, Tracer):
            keep = np.asarray(keep)  # small programs for every layer take longest to compile
        for slices in group.slices:
            if slices.path in convs:
                conv, path = convs[slices.path], leaf_path(path_in(leaves, slices.path))
                whole = np.ones(ConvLeaf(conv.kernel_shape, conv.axes).kernel_shape[2:], bool)
                layers[path] = layers.get(path, whole) & _kept_slices(slices, conv, keep)
    return masks_from_layers(params, layers, network=network)


def _kept_slices(slices: Slices, conv: Conv, keep: Any) -> Any:
    """Which kernels are not cut with the channels that go, (Cin, 1) or (1, Cout)."""
    size = conv.kernel_shape[slices.axis]
    channels = np.full(size, -1)  # which of the group's a slice belongs to
    channels[slices.indices] = np.arange(len(slices.indices))[:, None]
    kept = (channels < 0) | keep[channels]
    return kept[None] if slices.axis == conv.axes.output else kept[:, None]


def _group_scores(
    leaves: Mapping[Path, Array],
    network: Network,
    group: Group,
    criterion: str | Mapping[str, ArrayLike],
    graphs: Mapping[str, NNKGraph] | None,
    key: Array | None,
) -> Array:
    """Scores of a group's channels: the sums over the convolutions that make them."""
    total: Array | None = None
    for name in group.producers:
        conv = network[name]
        path = path_in(leaves, conv.path)
        (indices,) = (
            each.indices
            for each in group.slices
            if (each.path, each.axis) == (conv.path, conv.axes.output)
        )
        view = ChannelView(
            kernel=ConvLeaf(conv.kernel_shape, conv.axes).kernels(leaves[path]),
            scale=_scale_of(leaves, conv),
            graph=(graphs or {}).get(name),
            key=key,
        )
        scores = _scores(criterion, name, leaf_path(path), view)[indices].sum(1)
        total = scores if total is None else total + scores
    assert total is not None, "a group has a convolution that makes it"
    return total


def _scale_of(leaves: Mapping[Path, Array], conv: Conv) -> Array | None:
    """The last scale for each filter behind a convolution, such as BatchNorm's."""
    scales = [leaf for leaf in conv.channel_leaves if leaf.role == "scale"]
    return jnp.ravel(leaves[path_in(leaves, scales[-1].path)]) if scales else None


def _rates(keep_rate: float | Mapping[str, float], convs: list[str]) -> dict[str, float]:
    """The keep-rate of every conv."""
    by_pattern = dict(keep_rate) if isinstance(keep_rate, Mapping) else {"*": keep_rate}
    rates = dict.fromkeys(convs, 1.0)
    for pattern, rate in reversed(by_pattern.items()):
        check_share("keep_rate", rate)
        matched = matching(convs, pattern)
        if not matched and isinstance(keep_rate, Mapping):
            known = ", ".join(convs)
            raise ValueError(
                f"keep_rate: expected patterns of prunable convs ({known}), got {pattern!r}"
            )
        rates |= dict.fromkeys(matched, rate)
    return rates


def _scores(
    criterion: str | Mapping[str, ArrayLike], name: str, path: str, view: ChannelView
) -> Array:
    """Scores of a convolution's filters."""
    if isinstance(criterion, str):
        if criterion in OF_GRAPHS and view.graph is None:
            raise ValueError(f"graphs: expected one of {name!r} for {criterion!r}, got none")
        return CHANNEL_CRITERIA[criterion](view)
    shape = view.kernel.shape[3:]
    if path not in criterion or jnp.shape(criterion[path]) != shape:
        found = f"shape {jnp.shape(criterion[path])}" if path in criterion else "none"
        raise ValueError(f"criterion: expected scores {shape} of {path!r}, got {found}")
    return jnp.asarray(criterion[path])


def _curve(view: ChannelView, weights: Array | None = None) -> RedundancyCurve:
    if view.graph is None:
        raise ValueError("graphs: expected those of the channels for redundancy, got None")
    return redundancy_curve(view.graph, weights=weights)


def _places(order: Array) -> Array:
    size = order.shape[0]
    return jnp.zeros(size).at[order].set(jnp.arange(size, 0, -1).astype(jnp.float32))
