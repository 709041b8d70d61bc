"""The rule of operations on each element by itself."""

from collections.abc import Sequence
from functools import reduce
from typing import Any

import jax.numpy as jnp
import numpy as np

from jnnk.network._known import (
    CONSTANT,
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
from jnnk.network._patterns import Layout, Pattern, Shape, onto
from jnnk.network._placing import placed
from jnnk.network._pointwise import plain, pointwise
from jnnk.network._program import Operation


def _known(operation: Operation, inputs: Sequence[Known], shapes: Sequence[Any]) -> list[Known]:
    kind = reduce(np.maximum, (known.kind for known in inputs))
    all_zero = kind == ZERO
    kind = np.where(all_zero, np.uint8(CONSTANT), kind)
    for other in _factors(operation, inputs):
        kind = np.where(inputs[other].kind == ZERO, np.uint8(ZERO), kind)
    of_images = reads_images(inputs)
    outputs = shapes[len(inputs) :]
    if not (kind == CONSTANT).any():
        values: list[Any] = [nothing(len(each.shape), each.dtype) for each in outputs]
    else:
        values = _values(operation, inputs)
    fixed = np.asarray(True) if of_images else all_zero
    return [settled(kind, value, of_images=of_images, fixed=fixed) for value in values]


def _factors(operation: Operation, inputs: Sequence[Known]) -> tuple[int, ...]:
    """The inputs whose zeros make the result zero."""
    if operation.name == "mul":
        return (0, 1)
    return (0,) if operation.name == "div" else ()


def _values(operation: Operation, inputs: Sequence[Known]) -> list[Any]:
    function = plain(operation)  # JAX 0.8 traces custom rules even where values are known
    shape = np.broadcast_shapes(*(known.value.shape for known in inputs))
    arrays = [np.broadcast_to(k.value, shape) if k.value.ndim else k.value for k in inputs]
    return function(*map(jnp.asarray, arrays))


def _needs(
    operation: Operation,
    inputs: Sequence[Known],
    outputs: Sequence[Known],
    needs: Sequence[Need | None],
    shapes: Sequence[Any],
) -> list[Need | None]:
    found = [(need, known) for need, known in zip(needs, outputs, strict=True) if need]
    needed = reduce(np.logical_or, (need.needed for need, _ in found))
    live = reduce(np.logical_or, (pushed(need, known) for need, known in found))
    whole = frozenset().union(*(need.whole for need, _ in found))
    result: list[Need | None] = []
    for number, shape in enumerate(shapes[: len(inputs)]):
        read = _is_read(operation, inputs, number)
        axes = frozenset(axis for axis in whole if shape.shape and shape.shape[axis] is not None)
        result.append(
            Need(
                onto(needed & read, shape.shape),
                onto(live & read, shape.shape),
                axes,
            )
        )
    return result


def _is_read(operation: Operation, inputs: Sequence[Known], number: int) -> Pattern:
    """Where an input matters: not where it is multiplied by zero."""
    read = np.asarray(True)
    for other in _factors(operation, inputs):
        if other != number:
            read = read & ((inputs[other].kind != ZERO) | (inputs[number].kind == ZERO))
    return read


def _compute(
    operation: Operation,
    inputs: Sequence[Part],
    layouts: Sequence[Layout | None],
    shapes: Sequence[Any],
    _: Any,
) -> list[Any]:
    function = pointwise(operation)
    assert function is not None
    layout = next(each for each in layouts if each is not None)
    arrays = [placed(part, _of_operand(layout, part.shape)) for part in inputs]
    return function(*arrays)


def _of_operand(layout: Layout, shape: Shape) -> Layout:
    """A result's layout, for an operand that is broadcast to it."""
    if not len(shape):
        return ()
    return tuple(
        None if isinstance(size, int) and size == 1 else kept
        for kept, size in zip(layout, shape, strict=True)
    )


ELEMENTWISE = Rule(_known, _needs, _compute)
