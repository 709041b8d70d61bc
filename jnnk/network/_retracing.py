"""Whether an analysis of a program holds for another one, traced at another batch size."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import jax
import numpy as np

from jnnk.network._axiswise import AXISWISE
from jnnk.network._partial import Analysis
from jnnk.network._program import Operation, Program


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
    resized: set[int] = set()
    for number in range(len(program.shapes)):
        axes = _changed_axes(program, other, number)
        if axes is None or not _is_uniform(analysis, number, axes):
            return False
        one, two = program.shapes[number].shape, other.shapes[number].shape
        changed.update((one[axis], two[axis]) for axis in axes)
        resized.update([number] if axes else [])
    if any(_counts(operation, analysis, resized) for operation in program.operations):
        return False
    return len(program.operations) == len(other.operations) and all(
        _same_operation(one, two, changed)
        for one, two in zip(program.operations, other.operations, strict=True)
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


def _counts(operation: Operation, analysis: Analysis, resized: set[int]) -> bool:
    """Whether a constant may be a sum over an axis whose size differs."""
    if operation.name not in AXISWISE and operation.name != "dot_general":
        return False
    return not resized.isdisjoint(operation.inputs) and any(
        bool(analysis.known[number].value.any()) for number in operation.outputs
    )


def _same_operation(one: Operation, other: Operation, changed: set[tuple[Any, Any]]) -> bool:
    same = (one.name, one.inputs, one.outputs) == (other.name, other.inputs, other.outputs)
    if not same or one.params.keys() != other.params.keys():
        return False
    numbers = chain.from_iterable(
        _numbers(one.params[name], other.params[name]) for name in one.params
    )
    return all(
        _is_no_number(a) or bool(a == b) or any(a == c and bool(b == d) for c, d in changed)
        for a, b in numbers
    )


def _numbers(one: Any, other: Any) -> list[tuple[Any, Any]]:
    """The entries of two parameters, side by side."""
    if one is other:
        return []
    left, right = jax.tree.leaves(one), jax.tree.leaves(other)
    if len(left) != len(right):
        return [(0, 1)]
    return list(zip(left, right, strict=True))


def _is_no_number(value: Any) -> bool:
    """Whether a parameter is a jaxpr or a function, which say no more than the operation's name."""
    return not isinstance(value, int | float | str | np.generic)
