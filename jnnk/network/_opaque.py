"""The rule of all other operations: whole values in, whole values out."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jnnk.network._internals import evaluate
from jnnk.network._known import (
    CONSTANT,
    MISSING,
    Known,
    Need,
    Part,
    Rule,
    is_known,
    is_of_numbers,
    live,
    nothing,
    pushed,
    reads_images,
    settled,
)
from jnnk.network._patterns import Layout, everything, uniform
from jnnk.network._placing import placed, taken
from jnnk.network._program import Operation


def _known(operation: Operation, inputs: Sequence[Known], shapes: Sequence[Any]) -> list[Known]:
    of_images, outputs = reads_images(inputs), shapes[len(inputs) :]
    if any((known.kind == MISSING).any() for known in inputs):
        return [
            Known(
                uniform(len(s.shape), MISSING, np.uint8), nothing(len(s.shape), s.dtype), of_images
            )
            for s in outputs
        ]
    if of_images or not all(map(is_known, inputs)) or not _can_be_known(shapes):
        return [live(len(s.shape), s.dtype, of_images=of_images) for s in outputs]
    arrays = [
        jnp.asarray(np.broadcast_to(known.value, shape.shape))
        for known, shape in zip(inputs, shapes, strict=False)
    ]
    found = evaluate(operation.equation, arrays)
    return [
        settled(uniform(np.ndim(value), CONSTANT, np.uint8), value, of_images=False)
        for value in found
    ]


def _can_be_known(shapes: Sequence[Any]) -> bool:
    """Whether values are of numbers and their sizes known."""
    return all(
        is_of_numbers(each.dtype) and all(isinstance(size, int) for size in each.shape)
        for each in shapes
    )


def _needs(
    operation: Operation,
    inputs: Sequence[Known],
    outputs: Sequence[Known],
    needs: Sequence[Need | None],
    shapes: Sequence[Any],
) -> list[Need | None]:
    del operation
    living = any(
        need is not None and bool(pushed(need, known).any())
        for need, known in zip(needs, outputs, strict=True)
    )
    return [
        Need(uniform(len(shape.shape), True, bool), uniform(len(shape.shape), living, bool))
        for shape in shapes[: len(inputs)]
    ]


def _compute(
    operation: Operation,
    inputs: Sequence[Part],
    layouts: Sequence[Layout | None],
    shapes: Sequence[Any],
    _: Any,
) -> list[Any]:
    del shapes
    outputs = evaluate(
        operation.equation, [placed(part, everything(len(part.shape))) for part in inputs]
    )
    result: list[Any] = []
    for array, layout in zip(outputs, layouts, strict=True):
        for axis, kept in enumerate(layout or ()):
            if kept is not None:
                array = taken(array, kept, axis)
        result.append(array)
    return result


OPAQUE = Rule(_known, _needs, _compute)
