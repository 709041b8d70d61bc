"""Which slices of a network's parameters can be removed, and must be removed together."""

from collections.abc import Mapping, Sequence

import numpy as np

from jnnk.network._convs import Conv, Group, Slices
from jnnk.network._kernels import of_leaves, origins
from jnnk.network._known import live
from jnnk.network._names import Path
from jnnk.network._partial import find_known
from jnnk.network._program import Program
from jnnk.network._unit_finder import LeafAxis
from jnnk.network._units import find_units


def channel_groups(
    program: Program, convs: Sequence[Conv], paths: Sequence[Path]
) -> tuple[Group, ...]:
    """The channels of a network in groups of coupled ones, in the order of the network.

    Channels of the same slices of the same leaves are in one group: a stream that a later stage
    widens makes two.
    """
    count = len(paths)
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
    groups = [
        _group(convs, paths, units.axes, [signatures[unit] for unit in members], reason)
        for key, all_members in alike.items()
        for members, reason in _by_reason(all_members, units.reasons)
        if key
    ]
    told = {name for group in groups for name in group.producers}
    return (*groups, *(_kept(conv) for conv in convs if conv.name not in told))


def _kept(conv: Conv) -> Group:
    """The filters of a convolution that no group cuts."""
    in_scan = "it runs in a scan, whose steps share a leaf"
    reason = in_scan if conv.axes.stack else "an axis of its kernel is no axis of the leaf alone"
    return Group(conv.output_shape[-1], (conv.name,), (), (), reason)


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
    convs: Sequence[Conv],
    paths: Sequence[Path],
    axes: Sequence[LeafAxis],
    members: Sequence[list[tuple[int, np.ndarray]]],
    reason: str | None,
) -> Group:
    slices: list[Slices] = []
    cut: set[tuple[Path, int]] = set()
    for number, (place, _) in enumerate(members[0]):
        axis = axes[place]
        path = paths[axis.leaf]
        slices.append(Slices(path, axis.axis, np.stack([each[number][1] for each in members])))
        cut.add((path, axis.axis))
    return Group(
        size=len(members),
        producers=tuple(conv.name for conv in convs if (conv.path, conv.axes.output) in cut),
        readers=tuple(conv.name for conv in convs if (conv.path, conv.axes.input) in cut),
        slices=tuple(slices),
        reason=reason,
    )
