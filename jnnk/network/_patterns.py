"""Patterns and layouts: of which elements of an array something holds, and which of them are kept.

A pattern is a NumPy array that broadcasts against the shape of its value, of size 1 along axes on
which nothing differs: ``(1, 1, 1, C)`` tells of channels, whatever the batch. A layout names what
is kept of each axis: a rectangle of elements.
"""

import math
from collections.abc import Collection, Sequence
from typing import Any, TypeAlias

import numpy as np

from jnnk.network._internals import InconclusiveDimensionOperation

Pattern: TypeAlias = np.ndarray
#: For each axis the indices that are kept, in order, or None where all are.
Layout: TypeAlias = tuple[np.ndarray | None, ...]
#: Sizes, of which the batch's may be symbolic.
Shape: TypeAlias = Sequence[Any]


def everything(rank: int) -> Layout:
    """The layout that keeps all."""
    return (None,) * rank


def uniform(rank: int, value: Any, dtype: Any) -> Pattern:
    """The pattern that is ``value`` everywhere."""
    return np.full((1,) * rank, value, dtype)


def layout_of(pattern: Pattern, *, whole: Collection[int] = ()) -> Layout | None:
    """The smallest rectangle around the elements of a pattern; None where it has none.

    Args:
        pattern: bool.
        whole: axes that are kept whole.
    """
    if not pattern.any():
        return None
    layout: list[np.ndarray | None] = []
    for axis, size in enumerate(pattern.shape):
        others = tuple(each for each in range(pattern.ndim) if each != axis)
        kept = pattern.any(axis=others) if size > 1 and axis not in whole else np.True_
        layout.append(None if kept.all() else np.flatnonzero(kept))
    return tuple(layout)


def pattern_of(layout: Layout | None, shape: Shape) -> Pattern:
    """The pattern of a layout's elements, bool."""
    if layout is None:
        return uniform(len(shape), False, bool)
    pattern = uniform(len(shape), True, bool)
    for axis, kept in enumerate(layout):
        if kept is not None:
            inside = np.zeros(shape[axis], bool)
            inside[kept] = True
            pattern = pattern & _along(axis, len(shape), inside)
    return pattern


def same_layout(one: Layout | None, other: Layout | None) -> bool:
    """Whether two layouts keep the same elements."""
    if one is None or other is None:
        return one is other
    return all(
        (a is None and b is None) or (a is not None and b is not None and np.array_equal(a, b))
        for a, b in zip(one, other, strict=True)
    )


def sizes_of(layout: Layout, shape: Shape) -> tuple[Any, ...]:
    """The shape of what a layout keeps."""
    return tuple(
        size if kept is None else len(kept) for kept, size in zip(layout, shape, strict=True)
    )


def collapsed(array: np.ndarray) -> np.ndarray:
    """An array without the axes along which nothing differs: they get size 1."""
    for axis, size in enumerate(array.shape):
        if size > 1:
            first = array.take([0], axis=axis)
            if np.array_equal(np.broadcast_to(first, array.shape), array):
                array = first
    return array


def over(pattern: Pattern, axes: Collection[int]) -> Pattern:
    """The largest value along some axes, which get size 1."""
    axes = tuple(axis for axis in axes if pattern.shape[axis] != 1)
    return pattern.max(axis=axes, keepdims=True) if axes else pattern


def onto(pattern: Pattern, shape: Shape) -> Pattern:
    """A pattern of a result, as one of an operand that was broadcast to it."""
    if not len(shape):
        return np.asarray(pattern.max())
    return over(pattern, [axis for axis, size in enumerate(shape) if is_one(size)])


def is_one(size: Any) -> bool:
    """Whether a size is the number 1."""
    return isinstance(size, int) and size == 1


def regrouped(array: np.ndarray, shape: Shape, target: Shape) -> np.ndarray:
    """A pattern through a reshape of its value.

    Args:
        array: broadcasts against ``shape``.
        shape: of the value.
        target: its new shape.

    Returns:
        An array that broadcasts against ``target``. Where sizes that are not known would have to be
        written out, the largest value stands for all.
    """
    sizes: list[int] = []
    result: list[int] = []
    for old, new in matching_axes(shape, target):
        known = [array.shape[axis] for axis in old]
        if math.prod(known) == 1:
            sizes += known
            result += [1] * len(new)
            continue
        if not all(isinstance(shape[axis], int) for axis in old):
            array = over(array, old)
            sizes += [1] * len(old)
            result += [1] * len(new)
            continue
        sizes += [shape[axis] for axis in old]
        result += [target[axis] for axis in new]
    return collapsed(np.broadcast_to(array, sizes).reshape(result))


def matching_axes(shape: Shape, target: Shape) -> list[tuple[list[int], list[int]]]:
    """Axes of two shapes of the same size, in the smallest groups that correspond."""
    groups: list[tuple[list[int], list[int]]] = []
    old = new = 0
    while old < len(shape) or new < len(target):
        left, right = [], []
        if old < len(shape):
            left, old = [old], old + 1
        if new < len(target):
            right, new = [new], new + 1
        while not _same_size(left, shape, right, target):
            behind = _is_smaller(left, shape, right, target)
            if behind is not False and old < len(shape):
                left, old = [*left, old], old + 1
            elif new < len(target):
                right, new = [*right, new], new + 1
            else:
                left, old = [*left, old], old + 1
        groups.append((left, right))
    return groups


def _size(axes: list[int], shape: Shape) -> Any:
    size = 1
    for axis in axes:
        size = shape[axis] * size
    return size


def _same_size(left: list[int], shape: Shape, right: list[int], target: Shape) -> bool:
    return bool(_size(left, shape) == _size(right, target))


def _is_smaller(left: list[int], shape: Shape, right: list[int], target: Shape) -> bool | None:
    """Whether the left group is the smaller one; None where symbolic sizes do not tell."""
    try:
        return bool(_size(left, shape) < _size(right, target))
    except InconclusiveDimensionOperation:
        return None


def _along(axis: int, rank: int, values: np.ndarray) -> np.ndarray:
    return values.reshape([-1 if each == axis else 1 for each in range(rank)])
