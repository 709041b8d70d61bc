"""Which parameter a convolution's kernel is, followed from the leaves of the variables."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jnnk.network._linear import is_elementwise
from jnnk.network._program import Operation, Program
from jnnk.network._views import Digit, View, moved, whole_view


class Origin(NamedTuple):
    """The leaf that a value is made of, element by element.

    Attributes:
        leaf: number of the leaf among the program's inputs.
        view: the value's axes by those of the leaf.
        stack: axes of the leaf along which a scan or a vmap has a kernel for each step or copy.
    """

    leaf: int
    view: View
    stack: tuple[int, ...]


def origins(program: Program, inputs: Mapping[int, Origin]) -> dict[int, Origin]:
    """The leaf behind each value that is made of one element by element.

    A kernel in another dtype, transposed, multiplied by a mask or standardised is still that
    kernel. Where two leaves meet, the value counts as made of the first that is as large.

    Args:
        program: a network.
        inputs: what is known of the program's inputs.

    Returns:
        Number of a value -> its origin.
    """
    found = dict(inputs)
    for operation in program.operations:
        if len(operation.outputs) == 1:
            origin = _of_output(program, operation, found)
            if origin is not None:
                found[operation.outputs[0]] = origin
    return found


def of_leaves(program: Program, count: int) -> dict[int, Origin]:
    """Origins of the first inputs of a program, which are the leaves."""
    return {
        value: Origin(leaf, whole_view(program.shapes[value].shape), ())
        for leaf, value in enumerate(program.inputs[:count])
    }


def of_scan(operation: Operation, outside: Mapping[int, Origin]) -> dict[int, Origin]:
    """Origins of the inputs of a scan's body: its constants, and slices of stacked leaves."""
    assert operation.body is not None
    num_consts, num_carry = operation.scanned
    inside: dict[int, Origin] = {}
    for place, (value, inner) in enumerate(
        zip(operation.inputs, operation.body.inputs, strict=True)
    ):
        origin = outside.get(value)
        if origin is None or num_consts <= place < num_consts + num_carry:
            continue
        if place < num_consts:
            inside[inner] = origin
        elif len(origin.view[0]) == 1 and is_whole(origin.view[0][0]):
            stack = (*origin.stack, origin.view[0][0].axis)
            inside[inner] = Origin(origin.leaf, origin.view[1:], stack)
    return inside


def _of_output(
    program: Program, operation: Operation, found: Mapping[int, Origin]
) -> Origin | None:
    shape = program.shapes[operation.outputs[0]].shape
    if is_elementwise(operation.equation):
        for value in operation.inputs:
            if value in found and program.shapes[value].shape == shape:
                return found[value]
        return None
    origin = found.get(operation.inputs[0]) if operation.inputs else None
    view = None if origin is None else moved(origin.view, operation, shape)
    return None if origin is None or view is None else origin._replace(view=view)


def is_whole(digit: Digit) -> bool:
    """Whether a digit of an axis that is no other digit's is the whole index, first to last."""
    return digit.inner == 1 and not digit.is_reversed


class KernelAxes(NamedTuple):
    """What the axes of a leaf are, that holds kernels of a convolution.

    Attributes:
        spatial: the axes over positions, such as (0, 1) for height and width.
        input: the axis over input channels (of one group).
        output: the axis over filters.
        stack: axes before a kernel, of the steps of a scan or the copies of a vmap.
    """

    spatial: tuple[int, ...]
    input: int
    output: int
    stack: tuple[int, ...]


def kernel_axes(origin: Origin, rhs_spec: Sequence[int], rank: int) -> KernelAxes | None:
    """The axes of a leaf by what a convolution takes them for.

    Args:
        origin: of the convolution's kernel.
        rhs_spec: its axes: filters, input channels, positions.
        rank: number of axes of the leaf.

    Returns:
        The axes; None where the leaf's own axes are cut or joined in another way than filters that
        a vmap has put beside each other, or its channels reversed.
    """
    stack = list(origin.stack)
    axes: list[int | None] = []
    for place, at in enumerate(rhs_spec):
        parts = [part for part in origin.view[at] if part.size != 1] or list(origin.view[at])
        if place < 2 and any(part.is_reversed for part in parts):
            return None
        if place == 0 and len(parts) == 2:  # of a vmap over kernels: copies, then filters
            stack.append(parts.pop(0).axis)
        if len(parts) > 1:
            return None
        axes.append(parts[0].axis if parts else None)
    known = [axis for axis in axes if axis is not None]
    left = [axis for axis in range(rank) if axis not in (*known, *stack)]
    missing = len(axes) - len(known)
    if len({*known, *stack}) != len(known) + len(stack) or missing > len(left):
        return None
    # Axes of size 1 that a reshape made anew: in the order of the leaf.
    filled = [left.pop(0) if axis is None else axis for axis in axes]
    return KernelAxes(tuple(filled[2:]), filled[1], filled[0], (*stack, *left))
