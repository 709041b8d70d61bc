"""Convolutions and matrix products as one thing: sums of products along some axes.

Patterns of the two operands and of the result are brought to common axes, along which they
broadcast. Of a convolution these are image, group, input channel and output channel of a group; of
a ``dot_general`` batch axes, free axes of the left side, summed axes, free axes of the right side.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jnnk.network._patterns import Pattern, Shape, over
from jnnk.network._program import CONV, Operation

Map = Callable[[Pattern], Pattern]


class Product(NamedTuple):
    """How patterns of a sum of products map to common axes and back.

    Attributes:
        left: from a pattern of the left side to the common axes.
        right: from one of the right side.
        result: from one of the result, of size 1 along the summed axes.
        to_left: from the common axes to the left side, the largest value where several meet.
        to_right: to the right side.
        to_result: to the result.
        summed: common axes that are summed over.
        left_summed: axes of the left side that are summed over, and the right side's in the same
            order: each is one of the common axes ``summed``.
        right_summed: see there.
        left_free: axes of the left side -> axes of the result that they become.
        right_free: the same of the right side.
        groups: feature groups of a convolution, else 1.
    """

    left: Map
    right: Map
    result: Map
    to_left: Map
    to_right: Map
    to_result: Map
    summed: tuple[int, ...]
    left_summed: tuple[int, ...]
    right_summed: tuple[int, ...]
    left_free: dict[int, int]
    right_free: dict[int, int]
    groups: int


def product_of(operation: Operation, shapes: Sequence[Any]) -> Product:
    """The product that a ``conv_general_dilated`` or a ``dot_general`` is."""
    left, right = shapes[0].shape, shapes[1].shape
    if operation.name == CONV:
        return _of_conv(operation, left, right)
    return _of_dot(operation, left, right)


def _of_conv(operation: Operation, left: Shape, right: Shape) -> Product:
    numbers, groups = (
        operation.params["dimension_numbers"],
        operation.params["feature_group_count"],
    )
    of_left, of_right, of_result = (
        numbers.lhs_spec[:2],
        (numbers.rhs_spec[1], numbers.rhs_spec[0]),
        numbers.out_spec[:2],
    )
    channels, filters, rank = left[of_left[1]], right[of_right[1]], len(left)

    def table(pattern: Pattern, axes: Sequence[int]) -> np.ndarray:
        """A pattern of two of its axes alone."""
        others = [axis for axis in range(rank) if axis not in axes]
        found = np.moveaxis(over(pattern, others), axes, (0, 1))
        return found.reshape(found.shape[:2])

    def pattern_of(table: np.ndarray, axes: Sequence[int]) -> Pattern:
        return np.moveaxis(table.reshape(*table.shape, *[1] * (rank - 2)), (0, 1), axes)

    def split(table: np.ndarray) -> np.ndarray:
        """``(n, c or 1)`` as ``(n, groups or 1, channels of a group or 1)``."""
        return table.reshape(len(table), groups if table.shape[1] > 1 else 1, -1)

    def joined(array: np.ndarray, size: int) -> np.ndarray:
        """``(n, groups or 1, c or 1)`` as ``(n, size)``, or ``(n, 1)`` where all are alike."""
        if array.shape[1] == array.shape[2] == 1:
            return array[:, :, 0]
        return np.broadcast_to(array, (len(array), groups, size // groups)).reshape(-1, size)

    def to_right(common: np.ndarray) -> Pattern:
        per_input = np.moveaxis(over(common, [0])[0], 1, 0)
        return pattern_of(joined(per_input, filters), of_right)

    return Product(
        left=lambda pattern: split(table(pattern, of_left))[..., None],
        right=lambda pattern: np.moveaxis(split(table(pattern, of_right)), 0, 1)[None],
        result=lambda pattern: split(table(pattern, of_result))[:, :, None],
        to_left=lambda common: pattern_of(joined(over(common, [3])[..., 0], channels), of_left),
        to_right=to_right,
        to_result=lambda common: pattern_of(joined(over(common, [2])[:, :, 0], filters), of_result),
        summed=(2,),
        left_summed=(of_left[1],),
        right_summed=(of_right[0],),
        left_free={of_left[0]: of_result[0]},
        right_free={of_right[1]: of_result[1]},
        groups=groups,
    )


def _of_dot(operation: Operation, left: Shape, right: Shape) -> Product:
    (left_summed, right_summed), (left_batch, right_batch) = operation.params["dimension_numbers"]
    left_free = [a for a in range(len(left)) if a not in (*left_summed, *left_batch)]
    right_free = [a for a in range(len(right)) if a not in (*right_summed, *right_batch)]
    batch, rows, sums, columns = map(len, (left_batch, left_free, left_summed, right_free))
    left_order = (*left_batch, *left_free, *left_summed)
    right_order = (*right_batch, *right_summed, *right_free)
    summed = tuple(range(batch + rows, batch + rows + sums))

    def from_left(pattern: Pattern) -> np.ndarray:
        found = pattern.transpose(left_order)
        return found.reshape((*found.shape, *[1] * columns))

    def from_right(pattern: Pattern) -> np.ndarray:
        found = pattern.transpose(right_order)
        return found.reshape((*found.shape[:batch], *[1] * rows, *found.shape[batch:]))

    def from_result(pattern: Pattern) -> np.ndarray:
        shape = pattern.shape
        return pattern.reshape((*shape[: batch + rows], *[1] * sums, *shape[batch + rows :]))

    def to_left(common: np.ndarray) -> Pattern:
        behind = range(batch + rows + sums, common.ndim)
        found = over(common, behind)
        return found.reshape(found.shape[: batch + rows + sums]).transpose(np.argsort(left_order))

    def to_right(common: np.ndarray) -> Pattern:
        found = over(common, range(batch, batch + rows))
        found = found.reshape((*found.shape[:batch], *found.shape[batch + rows :]))
        return found.transpose(np.argsort(right_order))

    def to_result(common: np.ndarray) -> Pattern:
        shape = over(common, summed).shape
        return over(common, summed).reshape((*shape[: batch + rows], *shape[batch + rows + sums :]))

    of_batch = range(batch)
    return Product(
        left=from_left,
        right=from_right,
        result=from_result,
        to_left=to_left,
        to_right=to_right,
        to_result=to_result,
        summed=summed,
        left_summed=tuple(left_summed),
        right_summed=tuple(right_summed),
        left_free={
            **dict(zip(left_batch, of_batch, strict=True)),
            **{axis: batch + number for number, axis in enumerate(left_free)},
        },
        right_free={
            **dict(zip(right_batch, of_batch, strict=True)),
            **{axis: batch + rows + number for number, axis in enumerate(right_free)},
        },
        groups=1,
    )


def size_of(*arrays: np.ndarray) -> int:
    """Elements of the arrays' common shape."""
    return math.prod(np.broadcast_shapes(*(array.shape for array in arrays)))
