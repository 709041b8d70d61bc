"""Which slices of a network's parameters can be removed, and must be removed together."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jnnk.network._kernels import of_leaves, origins
from jnnk.network._known import live
from jnnk.network._names import Path, leaf_path
from jnnk.network._network import Network
from jnnk.network._partial import find_known
from jnnk.network._units import LeafAxis, find_units


class Slices(NamedTuple):
    """Slices of a leaf along one of its axes, those of each channel of a group.

    Attributes:
        path: JAX key path of the leaf in the variables.
        axis: of the leaf.
        indices: int (size of the group, slices of a channel): which ones.
    """

    path: Path
    axis: int
    indices: np.ndarray


class Group(NamedTuple):
    """Channels of the same kind, such as those of a residual stream.

    Attributes:
        size: number of channels; each can go by itself, with all that hangs together with it.
        producers: names of the convolutions whose filters they are.
        readers: names of the convolutions that read them.
        slices: the slices of parameters and statistics that go with each channel.
        reason: why none of them can go; None if they can.
    """

    size: int
    producers: tuple[str, ...]
    readers: tuple[str, ...]
    slices: tuple[Slices, ...]
    reason: str | None


def groups(network: Network) -> tuple[Group, ...]:
    """The channels of a network, by what hangs together.

    What has to go together is found channel by channel: what is added to a residual stream, scaled
    by a normalisation or gated belongs to one channel; a depthwise convolution keeps channels
    apart, other grouped ones tie a group's inputs and filters together; so does GroupNorm, and
    LayerNorm ties all. Channels that reach an output, or an operation that has no rule, stay.

    Args:
        network: of `jnnk.network.read`.

    Returns:
        The groups, in the order of the network. Channels of the same slices of the same leaves are
        in one group: a stream that a later stage widens makes two.
    """
    program, count = network.program, len(network.paths)
    shapes = [program.shapes[number] for number in program.inputs]
    inputs = [
        live(len(shape.shape), shape.dtype, of_images=place >= count)
        for place, shape in enumerate(shapes)
    ]
    known, rules = find_known(program, inputs)
    leaves = origins(program, of_leaves(program, count))
    units = find_units(program, known, rules, leaves, count)
    signatures: dict[int, list[tuple[int, np.ndarray]]] = {}
    for place, axis in enumerate(units.axes):
        for unit, indices in _indices_of(axis.units):
            signatures.setdefault(unit, []).append((place, indices))
    alike: dict[tuple[tuple[int, int], ...], list[int]] = {}
    for unit, found in signatures.items():
        alike.setdefault(tuple((place, len(each)) for place, each in found), []).append(unit)
    return tuple(
        _group(network, units.axes, [signatures[unit] for unit in members], reason)
        for key, all_members in alike.items()
        for members, reason in _by_reason(all_members, units.reasons)
        if key
    )


def _indices_of(units: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Each unit along an axis, and where it is."""
    order = np.argsort(units, kind="stable")
    found, starts = np.unique(units[order], return_index=True)
    return list(zip(found.tolist(), np.split(order, starts[1:]), strict=True))


def _by_reason(
    members: Sequence[int], reasons: Mapping[int, str]
) -> list[tuple[list[int], str | None]]:
    by_reason: dict[str | None, list[int]] = {}
    for unit in members:
        by_reason.setdefault(reasons.get(unit), []).append(unit)
    return [(found, reason) for reason, found in by_reason.items()]


def _group(
    network: Network,
    axes: Sequence[LeafAxis],
    members: Sequence[list[tuple[int, np.ndarray]]],
    reason: str | None,
) -> Group:
    slices: list[Slices] = []
    cut: set[tuple[Path, int]] = set()
    for number, (place, _) in enumerate(members[0]):
        axis = axes[place]
        path = network.paths[axis.leaf]
        slices.append(Slices(path, axis.axis, np.stack([each[number][1] for each in members])))
        cut.add((path, axis.axis))
    return Group(
        size=len(members),
        producers=tuple(
            conv.name for conv in network.convs if (conv.path, conv.axes.output) in cut
        ),
        readers=tuple(conv.name for conv in network.convs if (conv.path, conv.axes.input) in cut),
        slices=tuple(slices),
        reason=reason,
    )


def describe(found: Sequence[Group]) -> str:
    """A table of groups."""
    lines = []
    for group in found:
        made = ", ".join(group.producers) or leaf_path(group.slices[0].path)
        told = f"; stays, since {group.reason}" if group.reason else ""
        lines.append(f"{group.size} channels of {made}, read by {', '.join(group.readers)}{told}")
    return "\n".join(lines)
