"""The rule of operations along some axes that treat the others alike: reductions and the like."""

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import jax.numpy as jnp
import numpy as np

from jnnk.network._internals import evaluate
from jnnk.network._known import (
    CONSTANT,
    LIVE,
    ZERO,
    Known,
    Need,
    Part,
    Rule,
    nothing,
    pushed,
    reads_images,
    settled,
)
from jnnk.network._patterns import Layout, Pattern, collapsed, over
from jnnk.network._placing import placed, taken
from jnnk.network._program import Operation

REDUCTIONS = frozenset((
    "reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or",
    "reduce_xor", "argmax", "argmin",
))  # fmt: skip
#: Windows slide along positions.
WINDOWS = frozenset((
    "reduce_window_max", "reduce_window_min", "reduce_window_sum", "cumsum", "cumprod", "cummax",
    "cummin", "cumlogsumexp",
))  # fmt: skip
AXISWISE = REDUCTIONS | WINDOWS | {"sort"}
#: What a reduction makes of many times the same value is that value.
_IDEMPOTENT = ("reduce_max", "reduce_min", "reduce_and", "reduce_or")
#: Constants of more elements are computed with the network.
_LARGEST = 2**24


def axes_of(operation: Operation, rank: int) -> tuple[int, ...]:
    """The axes that an operation goes along."""
    params = operation.params
    if "axes" in params:
        return tuple(axis % rank for axis in params["axes"])
    if "window_dimensions" in params:
        each = zip(
            params["window_dimensions"], params["window_strides"], params["padding"], strict=True
        )
        return tuple(
            axis
            for axis, (window, stride, padding) in enumerate(each)
            if window != 1 or stride != 1 or tuple(padding) != (0, 0)
        )
    return (params["dimension" if operation.name == "sort" else "axis"] % rank,)


def _is_reduction(operation: Operation) -> bool:
    return operation.name in REDUCTIONS


def _squeezed(operation: Operation, array: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """A pattern of size 1 along the axes, as one of the result."""
    if not _is_reduction(operation):
        return array
    return array.reshape([n for axis, n in enumerate(array.shape) if axis not in axes])


def _known(operation: Operation, inputs: Sequence[Known], shapes: Sequence[Any]) -> list[Known]:
    shape = shapes[0].shape
    axes = axes_of(operation, len(shape))
    kind = reduce(np.maximum, (over(known.kind, axes) for known in inputs))
    of_zeros = kind == ZERO
    kind = np.where(of_zeros, np.uint8(CONSTANT), kind)
    values: Sequence[Any] = [nothing(len(shape), s.dtype) for s in shapes[len(inputs) :]]
    values = [_squeezed(operation, value, axes) for value in values]
    if (kind == CONSTANT).any():
        found = _values(operation, inputs, axes, shape)
        if found is None:
            kind = np.where(kind == CONSTANT, np.uint8(LIVE), kind)
        else:
            values = found
    of_images = reads_images(inputs)
    kind = _squeezed(operation, kind, axes)
    fixed = np.asarray(True) if of_images else _squeezed(operation, of_zeros, axes)
    return [settled(kind, value, of_images=of_images, fixed=fixed) for value in values]


def _values(
    operation: Operation, inputs: Sequence[Known], axes: Sequence[int], shape: Sequence[Any]
) -> list[np.ndarray] | None:
    """The operation on constants; None where that takes too much or sizes are not known."""
    name = operation.name
    arrays = [known.value for known in inputs]
    alike = all(array.shape[axis] == 1 for axis in axes for array in arrays)
    if alike and name in _IDEMPOTENT:
        return [_squeezed(operation, arrays[0], axes)]
    if name == "reduce_sum" and alike and not arrays[0].any():
        return [_squeezed(operation, arrays[0], axes)]
    sizes = [shape[axis] for axis in axes]
    if not all(isinstance(size, int) for size in sizes):
        return None
    if name == "reduce_sum" and alike:
        count = np.asarray(math.prod(sizes)).astype(arrays[0].dtype)  # integers wrap, as their sum
        return [_squeezed(operation, arrays[0] * count, axes)]
    common = list(np.broadcast_shapes(*(array.shape for array in arrays)))
    for axis in axes:
        common[axis] = shape[axis]
    if math.prod(common) > _LARGEST:
        return None
    found = evaluate(operation.equation, [jnp.asarray(np.broadcast_to(a, common)) for a in arrays])
    return [collapsed(np.asarray(each)) for each in found]


def _needs(
    operation: Operation,
    inputs: Sequence[Known],
    outputs: Sequence[Known],
    needs: Sequence[Need | None],
    shapes: Sequence[Any],
) -> list[Need | None]:
    rank = len(shapes[0].shape)
    axes = axes_of(operation, rank)

    def before(pattern: Pattern) -> Pattern:
        if _is_reduction(operation):
            return np.expand_dims(pattern, axes)
        return over(pattern, axes)

    found = [(need, known) for need, known in zip(needs, outputs, strict=True) if need]
    needed = reduce(np.logical_or, (before(need.needed) for need, _ in found))
    live = reduce(np.logical_or, (before(pushed(need, known)) for need, known in found))
    whole = frozenset(axes) if operation.name in WINDOWS else frozenset()
    if not _is_reduction(operation):
        whole |= frozenset().union(*(need.whole for need, _ in found))
    return [Need(needed, live, whole) for _ in inputs]


def _compute(
    operation: Operation,
    inputs: Sequence[Part],
    layouts: Sequence[Layout | None],
    shapes: Sequence[Any],
    _: Any,
) -> list[Any]:
    axes = axes_of(operation, len(shapes[0].shape))
    layout = next(each for each in layouts if each is not None)
    target: list[np.ndarray | None] = list(layout)
    if _is_reduction(operation):
        for axis in sorted(axes):
            target.insert(axis, None)
    else:
        target = [None if axis in axes else kept for axis, kept in enumerate(layout)]
    outputs = evaluate(operation.equation, [placed(part, tuple(target)) for part in inputs])
    if _is_reduction(operation):
        return outputs
    for axis in axes:
        if (kept := layout[axis]) is not None:
            outputs = [taken(array, kept, axis) for array in outputs]
    return outputs


ALONG_AXES = Rule(_known, _needs, _compute)
