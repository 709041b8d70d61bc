"""Rules of operations that give elements other axes: transpose, reshape, broadcast."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jnnk.network._known import Known, Need, Part, Rule, pushed
from jnnk.network._patterns import (
    Layout,
    Pattern,
    is_one,
    layout_of,
    matching_axes,
    over,
    regrouped,
    sizes_of,
)
from jnnk.network._placing import placed, taken
from jnnk.network._program import Operation


def _moved(known: Known, kind: Pattern, value: np.ndarray) -> list[Known]:
    return [Known(kind, value, known.of_images)]


def _transposed_known(operation: Operation, inputs: Sequence[Known], _: Any) -> list[Known]:
    order = operation.params["permutation"]
    (known,) = inputs
    return _moved(known, known.kind.transpose(order), known.value.transpose(order))


def _transposed_needs(
    operation: Operation,
    inputs: Sequence[Known],
    outputs: Sequence[Known],
    needs: Sequence[Need | None],
    _: Any,
) -> list[Need | None]:
    del inputs
    order = operation.params["permutation"]
    back = np.argsort(order)
    (need,) = needs
    assert need is not None
    whole = frozenset(int(order[axis]) for axis in need.whole)
    live = pushed(need, outputs[0])
    return [Need(need.needed.transpose(back), live.transpose(back), whole)]


def _transposed(
    operation: Operation, inputs: Sequence[Part], layouts: Sequence[Layout | None], *_: Any
) -> list[Any]:
    order = operation.params["permutation"]
    (part,), (layout,) = inputs, layouts
    assert layout is not None
    return [placed(part, tuple(layout[axis] for axis in np.argsort(order))).transpose(order)]


def _reshaped_known(
    operation: Operation, inputs: Sequence[Known], shapes: Sequence[Any]
) -> list[Known]:
    del operation
    known, old, new = inputs[0], shapes[0].shape, shapes[-1].shape
    return _moved(known, regrouped(known.kind, old, new), regrouped(known.value, old, new))


def _reshaped_needs(
    operation: Operation,
    inputs: Sequence[Known],
    outputs: Sequence[Known],
    needs: Sequence[Need | None],
    shapes: Sequence[Any],
) -> list[Need | None]:
    del operation
    old, new, (need,) = shapes[0].shape, shapes[-1].shape, needs
    assert need is not None
    live = pushed(need, outputs[0])
    found = Need(regrouped(need.needed, new, old), regrouped(live, new, old))
    return [found, *([None] * (len(inputs) - 1))]


def _reshaped(
    operation: Operation,
    inputs: Sequence[Part],
    layouts: Sequence[Layout | None],
    shapes: Sequence[Any],
    _: Any,
) -> list[Any]:
    """Places the smallest rectangle that holds the elements wanted, picks them and reshapes."""
    del operation
    part, layout, new = inputs[0], layouts[0], shapes[-1].shape
    assert layout is not None
    source: list[np.ndarray | None] = [None] * len(part.shape)
    joined: list[Any] = []
    picks: list[tuple[int, np.ndarray]] = []
    for axes, wide in matching_axes(part.shape, new):
        if all(layout[axis] is None for axis in wide):
            joined += [new[axis] for axis in wide]
            continue
        wanted = _flat(tuple(layout[axis] for axis in wide), [new[axis] for axis in wide])
        rectangle, held = _around(wanted, [part.shape[axis] for axis in axes])
        for axis, kept in zip(axes, rectangle, strict=True):
            source[axis] = kept
        picks.append((len(joined), np.searchsorted(held, wanted)))
        joined.append(len(held))
    array = placed(part, tuple(source)).reshape(joined)
    for axis, pick in picks:
        array = taken(array, pick, axis)
    return [array.reshape(sizes_of(layout, new))]


def _flat(layout: Layout, sizes: Sequence[int]) -> np.ndarray:
    """Numbers of a layout's elements among all of some axes."""
    numbers = np.arange(math.prod(sizes)).reshape(sizes)
    kept = (
        np.arange(size) if each is None else each for each, size in zip(layout, sizes, strict=True)
    )
    return numbers[np.ix_(*kept)].ravel()


def _around(numbers: np.ndarray, sizes: Sequence[int]) -> tuple[Layout, np.ndarray]:
    """The smallest rectangle around elements of some axes, and the numbers of all in it."""
    pattern = np.zeros(math.prod(sizes), bool)
    pattern[numbers] = True
    rectangle = layout_of(pattern.reshape(sizes))
    assert rectangle is not None
    return rectangle, _flat(rectangle, sizes)


def _broadcast_known(
    operation: Operation, inputs: Sequence[Known], shapes: Sequence[Any]
) -> list[Known]:
    known, rank = inputs[0], len(shapes[-1].shape)
    dimensions = operation.params["broadcast_dimensions"]

    def spread(array: np.ndarray) -> np.ndarray:
        sizes = [1] * rank
        for axis, size in zip(dimensions, array.shape, strict=True):
            sizes[axis] = size
        return array.reshape(sizes)

    return _moved(known, spread(known.kind), spread(known.value))


def _broadcast_needs(
    operation: Operation,
    inputs: Sequence[Known],
    outputs: Sequence[Known],
    needs: Sequence[Need | None],
    shapes: Sequence[Any],
) -> list[Need | None]:
    dimensions, shape = operation.params["broadcast_dimensions"], shapes[0].shape
    (need,) = needs
    assert need is not None

    def gathered(pattern: Pattern) -> Pattern:
        new = [axis for axis in range(pattern.ndim) if axis not in dimensions]
        new += [axis for axis, size in zip(dimensions, shape, strict=True) if is_one(size)]
        pattern = over(pattern, new)
        return pattern.reshape([pattern.shape[axis] for axis in dimensions])

    found = Need(gathered(need.needed), gathered(pushed(need, outputs[0])))
    return [found, *([None] * (len(inputs) - 1))]


def _broadcast(
    operation: Operation,
    inputs: Sequence[Part],
    layouts: Sequence[Layout | None],
    shapes: Sequence[Any],
    _: Any,
) -> list[Any]:
    part, layout, shape = inputs[0], layouts[0], shapes[-1].shape
    dimensions = operation.params["broadcast_dimensions"]
    assert layout is not None
    source = tuple(
        None if is_one(size) else layout[axis]
        for axis, size in zip(dimensions, part.shape, strict=True)
    )
    sizes = sizes_of(layout, shape)
    return [jax.lax.broadcast_in_dim(placed(part, source), sizes, dimensions)]


TRANSPOSE = Rule(_transposed_known, _transposed_needs, _transposed)
RESHAPE = Rule(_reshaped_known, _reshaped_needs, _reshaped)
BROADCAST = Rule(_broadcast_known, _broadcast_needs, _broadcast)
