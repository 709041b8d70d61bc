"""Whether an analysis of a program holds for another one, traced at another batch size."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr

from jnnk.network._axiswise import AXISWISE, axes_of
from jnnk.network._partial import Analysis
from jnnk.network._program import Operation, Program
from jnnk.network._tracing import closed, written_out


def holds_for(program: Program, analysis: Analysis, other: Program) -> bool:
    """Whether the analysis of a program is also that of another.

    It is if the operations and constants are the same, and if sizes differ only along axes about
    whose elements the analysis does not say different things.

    Args:
        program: the program that was analysed.
        analysis: of it.
        other: the program in question; its sizes may be symbolic.
    """
    if (program.inputs, program.outputs) != (other.inputs, other.outputs):
        return False
    if len(program.shapes) != len(other.shapes) or not _same_constants(program, other):
        return False
    changed: set[tuple[Any, Any]] = set()
    resized: dict[int, list[int]] = {}
    for number in range(len(program.shapes)):
        axes = _changed_axes(program, other, number)
        if axes is None or not _is_uniform(analysis, number, axes):
            return False
        one, two = program.shapes[number].shape, other.shapes[number].shape
        changed.update((one[axis], two[axis]) for axis in axes)
        resized[number] = axes
    if any(_counts(program, operation, analysis, resized) for operation in program.operations):
        return False
    return _same_operations(program, other, changed)


def _same_operations(program: Program, other: Program, changed: set[tuple[Any, Any]]) -> bool:
    return len(program.operations) == len(other.operations) and all(
        _same_operation(one, two, changed)
        for one, two in zip(program.operations, other.operations, strict=True)
    )


def _is_same_inside(one: ClosedJaxpr, other: ClosedJaxpr, changed: set[tuple[Any, Any]]) -> bool:
    """Whether a function that an operation calls is the same but for sizes that differ outside."""
    program, another = written_out(one), written_out(other)
    sizes = [
        pair
        for a, b in zip(program.shapes, another.shapes, strict=False)
        for pair in zip(a.shape, b.shape, strict=False)
    ]
    return (
        (program.inputs, program.outputs) == (another.inputs, another.outputs)
        and [(s.dtype, len(s.shape)) for s in program.shapes]
        == [(s.dtype, len(s.shape)) for s in another.shapes]
        and _same_constants(program, another)
        and all(_is_same_number(*pair, changed) for pair in sizes)
        and _same_operations(program, another, changed)
    )


def _same_constants(program: Program, other: Program) -> bool:
    if program.constants.keys() != other.constants.keys():
        return False
    return all(
        value is other.constants[number] or _same_array(value, other.constants[number])
        for number, value in program.constants.items()
    )


def _same_array(one: Any, other: Any) -> bool:
    try:
        return np.array_equal(one, other)
    except TypeError:  # random keys are no NumPy arrays
        return False


def _changed_axes(program: Program, other: Program, number: int) -> list[int] | None:
    """Axes of a value whose sizes differ; None if it is another value."""
    one, two = program.shapes[number], other.shapes[number]
    if one.dtype != two.dtype or len(one.shape) != len(two.shape):
        return None
    sizes = zip(one.shape, two.shape, strict=True)
    return [axis for axis, (a, b) in enumerate(sizes) if not bool(a == b)]


def _is_uniform(analysis: Analysis, number: int, axes: Sequence[int]) -> bool:
    known, need = analysis.known[number], analysis.needs[number]
    layout = analysis.layouts[number]
    patterns = [known.kind, known.value, *((need.needed, need.live) if need else ())]
    return all(
        all(pattern.shape[axis] == 1 for pattern in patterns)
        and (layout is None or layout[axis] is None)
        for axis in axes
    )


def _counts(
    program: Program, operation: Operation, analysis: Analysis, resized: Mapping[int, list[int]]
) -> bool:
    """Whether a constant may be a sum over an axis whose size differs."""
    if not any(analysis.known[number].value.any() for number in operation.outputs):
        return False
    return any(
        not set(resized[number]).isdisjoint(summed)
        for number, summed in zip(operation.inputs, _summed(program, operation), strict=False)
    )


def _summed(program: Program, operation: Operation) -> list[Sequence[int]]:
    """Of each input of a reduction or a product, the axes that it goes along."""
    if operation.name == "dot_general":
        return [*operation.params["dimension_numbers"][0]]
    if operation.name not in AXISWISE:
        return []
    return [axes_of(operation, len(program.shapes[each].shape)) for each in operation.inputs]


def _same_operation(one: Operation, other: Operation, changed: set[tuple[Any, Any]]) -> bool:
    same = (one.name, one.inputs, one.outputs) == (other.name, other.inputs, other.outputs)
    if not same or one.params.keys() != other.params.keys():
        return False
    return all(_is_same(one.params[name], other.params[name], changed) for name in one.params)


def _is_same(one: Any, other: Any, changed: set[tuple[Any, Any]]) -> bool:
    """Whether two parameters are the same but for sizes that differ."""
    if one is other:
        return True
    left, right = jax.tree.leaves(one), jax.tree.leaves(other)
    return len(left) == len(right) and all(
        _is_same_entry(a, b, changed) for a, b in zip(left, right, strict=True)
    )


def _is_same_entry(one: Any, other: Any, changed: set[tuple[Any, Any]]) -> bool:
    if isinstance(one, Jaxpr | ClosedJaxpr):
        return type(one) is type(other) and _is_same_inside(closed(one), closed(other), changed)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, int | float | str | np.generic):
        return _is_same_number(one, other, changed)
    return True  # a function, such as that of a derivative, is that of the program which is run


def _is_same_number(one: Any, other: Any, changed: set[tuple[Any, Any]]) -> bool:
    return bool(one == other) or any(one == a and bool(other == b) for a, b in changed)
