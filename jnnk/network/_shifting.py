"""The rule of operations that take, pad or reverse along single axes.

Each is told by where every index of the result comes from along an axis: slices, paddings,
reversals, ``split``, shuffles, and gathers of fixed indices along one axis.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import jax
import numpy as np

from jnnk.network._known import Known, Need, Part, Rule, is_known, pushed
from jnnk.network._patterns import Layout, Pattern, collapsed, over, uniform
from jnnk.network._placing import placed, taken
from jnnk.network._program import Operation


class Shift(NamedTuple):
    """Where the elements of a result come from along some axes; along the others they stay.

    Attributes:
        sources: axis -> for each index of the result its index in the operand, -1 for padding.
    """

    sources: Mapping[int, np.ndarray]


def shifts_of(operation: Operation, inputs: Sequence[Known], shapes: Sequence[Any]) -> list[Shift]:
    """For each result of a taking operation, where it comes from; empty if that is not told."""
    shape, params = shapes[0].shape, operation.params
    axes = _touched(operation, shape)
    if not all(isinstance(shape[axis], int) for axis in axes):
        return []
    match operation.name:
        case "slice":
            starts, stops = params["start_indices"], params["limit_indices"]
            steps = params["strides"] or (1,) * len(shape)
            return [Shift({a: np.arange(starts[a], stops[a], steps[a]) for a in axes})]
        case "rev":
            return [Shift({axis: np.arange(shape[axis])[::-1] for axis in axes})]
        case "shuffle":
            return [Shift({params["axis"]: params["order"]})]
        case "pad":
            return [Shift({a: _padded(shape[a], *params["padding_config"][a]) for a in axes})]
        case "split":
            (axis,), ends = axes, list(accumulate(map(int, params["sizes"])))
            starts = [0, *ends[:-1]]
            return [Shift({axis: np.arange(*each)}) for each in zip(starts, ends, strict=True)]
        case "dynamic_slice" if all(map(is_known, inputs[1:])):
            sources = {}
            for axis in axes:
                size = params["slice_sizes"][axis]
                start = min(max(int(inputs[1 + axis].value), 0), shape[axis] - size)
                sources[axis] = np.arange(start, start + size)
            return [Shift(sources)]
        case "gather" if is_known(inputs[1]):
            return _gathered(operation, inputs[1], shapes)
    return []


def _touched(operation: Operation, shape: Sequence[Any]) -> list[int]:
    """The axes along which an operation takes, pads or reverses."""
    params = operation.params
    match operation.name:
        case "slice":
            steps = params["strides"] or (1,) * len(shape)
            each = zip(params["start_indices"], params["limit_indices"], steps, shape, strict=True)
            whole = [_is_same(a, 0) and _is_same(b, size) and c == 1 for a, b, c, size in each]
            return [axis for axis, is_whole in enumerate(whole) if not is_whole]
        case "rev":
            return list(params["dimensions"])
        case "pad":
            return [axis for axis, config in enumerate(params["padding_config"]) if any(config)]
        case "split":
            return [params["axis"]]
        case "dynamic_slice":
            each = zip(params["slice_sizes"], shape, strict=True)
            return [axis for axis, (one, size) in enumerate(each) if not _is_same(one, size)]
        case "gather":
            return list(params["dimension_numbers"].start_index_map)
    return []


def _is_same(one: Any, other: Any) -> bool:
    return bool(one == other)


def _padded(size: int, low: int, high: int, inside: int) -> np.ndarray:
    spread = np.full(max(size + inside * (size - 1), 0), -1)
    spread[:: inside + 1] = np.arange(size)
    spread = spread[max(-low, 0) : len(spread) - max(-high, 0)]
    return np.concatenate([np.full(max(low, 0), -1), spread, np.full(max(high, 0), -1)])


def _gathered(operation: Operation, indices: Known, shapes: Sequence[Any]) -> list[Shift]:
    """A gather that takes some indices of each of some axes, and all of the others."""
    shape, numbers = shapes[0].shape, operation.params["dimension_numbers"]
    axes = tuple(numbers.start_index_map)
    if numbers.operand_batching_dims:
        return []
    others = tuple(each for each in range(len(shape)) if each not in axes)
    sizes = operation.params["slice_sizes"]
    if not all(_is_same(sizes[each], shape[each]) for each in others):
        return []
    found = np.broadcast_to(indices.value, shapes[1].shape)
    if (found < 0).any() or (found >= [shape[axis] for axis in axes]).any():
        return []
    is_grid = numbers.collapsed_slice_dims == axes and numbers.offset_dims == others
    if is_grid and found.ndim == len(axes) + 1:
        rows = [_along(found[..., place], place) for place in range(len(axes))]
        if any(row is None for row in rows):
            return []
        return [Shift({a: row for a, row in zip(axes, rows, strict=True) if row is not None})]
    if not numbers.collapsed_slice_dims and found.ndim == 1 and len(axes) == 1:
        start = int(found[0])
        if start + sizes[axes[0]] > shape[axes[0]]:
            return []
        return [Shift({axes[0]: np.arange(start, start + sizes[axes[0]])})]
    return []


def _along(found: np.ndarray, axis: int) -> np.ndarray | None:
    """Indices that differ along one axis alone; None where they differ along others."""
    row = np.moveaxis(found, axis, 0).reshape(found.shape[axis], -1)
    return row[:, 0].astype(int) if (row == row[:, :1]).all() else None


def _shifted(array: np.ndarray, shift: Shift, fill: Any, shape: Sequence[Any]) -> np.ndarray:
    """A pattern of the operand, as one of the result."""
    for axis, source in shift.sources.items():
        if array.shape[axis] == 1:
            if (source >= 0).all():
                continue
            sizes = [shape[a] if a == axis else n for a, n in enumerate(array.shape)]
            array = np.broadcast_to(array, sizes)
        extra = [1 if a == axis else n for a, n in enumerate(array.shape)]
        padding = np.broadcast_to(np.asarray(fill, array.dtype), extra)
        # The index -1 is the last, which is the padding.
        array = np.concatenate([array, padding], axis=axis).take(source, axis=axis)
    return collapsed(array)


def _known(operation: Operation, inputs: Sequence[Known], shapes: Sequence[Any]) -> list[Known]:
    known, shape = inputs[0], shapes[0].shape
    nothing = np.zeros((), np.uint8)
    fill = inputs[1] if operation.name == "pad" else Known(nothing, nothing, False)
    return [
        Known(
            _shifted(known.kind, shift, fill.kind, shape),
            _shifted(known.value, shift, fill.value, shape),
            known.of_images or fill.of_images,
        )
        for shift in shifts_of(operation, inputs, shapes)
    ]


def _needs(
    operation: Operation,
    inputs: Sequence[Known],
    outputs: Sequence[Known],
    needs: Sequence[Need | None],
    shapes: Sequence[Any],
) -> list[Need | None]:
    known, shape = inputs[0], shapes[0].shape
    needed = live = np.zeros((1,) * len(shape), bool)
    whole: frozenset[int] = frozenset()
    shifts = shifts_of(operation, inputs, shapes)
    fill_need: Need | None = None
    for need, output, shift in zip(needs, outputs, shifts, strict=True):
        if need is None:
            continue
        needed = needed | _unshifted(need.needed, known.kind, shift, shape)
        live = live | _unshifted(pushed(need, output), known.kind, shift, shape)
        whole |= need.whole
        if operation.name == "pad":
            fill_need = Need(np.asarray(True), np.asarray(bool(pushed(need, output).any())))
    # Indices are constants, which are computed anew where they are leaves.
    index = [uniform(len(each.shape), True, bool) for each in shapes[1 : len(inputs)]]
    rest = [fill_need] if operation.name == "pad" else [Need(each, ~each) for each in index]
    return [Need(needed, live, whole), *rest]


def _unshifted(pattern: Pattern, kind: Pattern, shift: Shift, shape: Sequence[Any]) -> Pattern:
    """A pattern of the result, as one of the operand."""
    for axis, source in shift.sources.items():
        inside = source[source >= 0]
        even = len(inside) < 2 or bool((np.diff(inside) == 1).all())
        if pattern.shape[axis] == 1 and kind.shape[axis] == 1 and not (even and _is_cut(source)):
            continue
        if not isinstance(shape[axis], int):
            pattern = over(pattern, [axis])
            continue
        sizes = [n if a != axis else shape[axis] for a, n in enumerate(pattern.shape)]
        spread = np.zeros(sizes, bool)
        rows = np.moveaxis(spread, axis, 0)
        of_result = np.moveaxis(pattern, axis, 0)
        if pattern.shape[axis] == 1:
            rows[inside] = of_result
        else:
            np.logical_or.at(rows, inside, of_result[source >= 0])
        pattern = spread
    return collapsed(pattern)


def _is_cut(source: np.ndarray) -> bool:
    """Whether a result is a piece of its operand, without padding."""
    return bool((source >= 0).all())


def _compute(
    operation: Operation,
    inputs: Sequence[Part],
    layouts: Sequence[Layout | None],
    shapes: Sequence[Any],
    _: Any,
) -> list[Any]:
    shifts = shifts_of(operation, [part.known for part in inputs], shapes)
    return [
        None if layout is None else _taken(operation, inputs, shift, layout)
        for shift, layout in zip(shifts, layouts, strict=True)
    ]


def _taken(operation: Operation, inputs: Sequence[Part], shift: Shift, layout: Layout) -> jax.Array:
    target = list(layout)
    config = [(0, 0, 0)] * len(layout)
    picked: dict[int, np.ndarray] = {}
    for axis, source in shift.sources.items():
        if layout[axis] is None and operation.name == "pad":
            target[axis] = None
            config[axis] = operation.params["padding_config"][axis]
            continue
        wanted = source if layout[axis] is None else source[layout[axis]]
        target[axis] = wanted[wanted >= 0]
        if (wanted < 0).any():
            picked[axis] = wanted
    array = placed(inputs[0], tuple(target))
    if operation.name != "pad":
        return array
    fill = placed(inputs[1], ())
    for axis, wanted in picked.items():
        array = _interleaved(array, fill, axis, wanted)
    return jax.lax.pad(array, fill, config) if any(map(any, config)) else array


def _interleaved(array: jax.Array, fill: jax.Array, axis: int, wanted: np.ndarray) -> jax.Array:
    """Puts padding between and around elements of an axis."""
    inside = np.flatnonzero(wanted >= 0)
    before, after = (inside[0], len(wanted) - 1 - inside[-1]) if len(inside) else (0, len(wanted))
    if before + len(inside) + after == len(wanted):  # around them alone
        config = [
            (int(before), int(after), 0) if a == axis else (0, 0, 0) for a in range(array.ndim)
        ]
        return jax.lax.pad(array, fill, config)
    config = [(0, 1 if each == axis else 0, 0) for each in range(array.ndim)]
    order = np.where(wanted >= 0, np.cumsum(wanted >= 0) - 1, array.shape[axis])
    return taken(jax.lax.pad(array, fill, config), order, axis)


SHIFT = Rule(_known, _needs, _compute)
