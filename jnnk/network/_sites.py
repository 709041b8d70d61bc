"""Where a convolution's activations are found: behind the operations on each element after it.

From the output of a convolution we follow what is made of it alone, element by element or through
the means of a normalisation, up to the first value that something else reads: another convolution,
a pooling, a reduction, a reshape, a join. Where that is a sum with a residual stream and no
nonlinearity came before, the activation is the first such value behind the sum that a nonlinearity
made.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from jnnk.network._linear import is_elementwise, is_linear
from jnnk.network._program import Operation, Program
from jnnk.network._views import Digit, View, moved, whole_view

_SUMS = ("add", "add_any", "sub")
#: What a normalisation is made of besides operations on each element.
_OF_NORMS = frozenset((
    "broadcast_in_dim", "concatenate", "copy", "expand_dims", "gather", "pad", "reduce_and",
    "reduce_max", "reduce_min", "reduce_prod", "reduce_sum", "reshape", "rev", "slice", "squeeze",
    "transpose", "split", "psum", "pmean",
))  # fmt: skip


class Site(NamedTuple):
    """Where activations are.

    Attributes:
        value: number of the value.
        view: its axes by those of the convolution's output.
        inside: numbers of the values before it (before the sum, if it is behind one) that are made
            of the convolution's output alone, and of that.
    """

    value: int
    view: View
    inside: frozenset[int]


class _Value(NamedTuple):
    """A value made of the start of a region alone.

    Attributes:
        view: its axes by those of the start; None unless each of its elements is made of the one
            at its place, or of means besides.
        is_nonlinear: whether it is no linear function of the element at its place.
    """

    view: View | None
    is_nonlinear: bool


def activation_site(program: Program, start: int, dependent: set[int]) -> Site:
    """Where the activations of a convolution are.

    Args:
        program: a network, without operations that nothing needs.
        start: number of the convolution's output.
        dependent: numbers of all values that depend on the images.
    """
    found = _first_exit(program, start, dependent)
    if found.is_nonlinear:
        return found.site
    reached, view = found.site.value, found.site.view
    for joined in _sums_with_others(program, reached, found.region, dependent):
        behind = _behind_sum(program, joined, dependent)
        if behind is not None:
            return Site(behind.value, _composed(view, behind.view), found.site.inside)
    return found.site


class _Exit(NamedTuple):
    """The first value of a region that is read by something outside of it."""

    site: Site
    is_nonlinear: bool
    region: Mapping[int, _Value]


def _behind_sum(program: Program, start: int, dependent: set[int]) -> Site | None:
    """The first nonlinear value behind a sum; None if the next convolution comes first."""
    found = _first_exit(program, start, dependent)
    if found.is_nonlinear:
        return found.site
    sums = list(_sums_with_others(program, found.site.value, found.region, dependent))
    readers = [
        operation
        for operation in program.operations
        if found.site.value in operation.inputs and operation.outputs[0] not in found.region
    ]
    if len(sums) != len(readers):
        return None
    for joined in sums:
        behind = _behind_sum(program, joined, dependent)
        if behind is not None:
            return Site(behind.value, _composed(found.site.view, behind.view), frozenset())
    return None


def _first_exit(program: Program, start: int, dependent: set[int]) -> _Exit:
    region = _region(program, start, dependent)
    whole = whole_view(program.shapes[start].shape)
    full = [value for value, found in region.items() if _is_whole(found.view, whole)]
    inside = _leading_to(program, region, full)
    left = {
        value
        for operation in program.operations
        if not inside.intersection(operation.outputs)
        for value in operation.inputs
    } | {*program.outputs}
    exits = [value for value in full if value in left]
    nonlinear = [value for value in exits if region[value].is_nonlinear]
    chosen = (nonlinear or exits or [start])[0]
    view = region[chosen].view
    assert view is not None
    before = frozenset(_leading_to(program, region, [chosen]))
    return _Exit(Site(chosen, view, before), bool(nonlinear), region)


def _region(program: Program, start: int, dependent: set[int]) -> dict[int, _Value]:
    """What is made of a value alone, with parameters, by the operations of layers' ends."""
    shape = program.shapes[start].shape
    region = {start: _Value(whole_view(shape), is_nonlinear=False)}
    for operation in program.operations:
        reads = dependent.intersection(operation.inputs)
        if not reads or not reads <= region.keys():
            continue
        elementwise = is_elementwise(operation.equation)
        if not elementwise and operation.name not in _OF_NORMS:
            continue
        for output in operation.outputs:
            made = _of_elements if elementwise else _of_move
            region[output] = made(program, operation, region, program.shapes[output].shape)
    return region


def _of_elements(
    program: Program, operation: Operation, region: Mapping[int, _Value], shape: tuple[int, ...]
) -> _Value:
    found = [region.get(value, _Value(None, is_nonlinear=False)) for value in operation.inputs]
    pointwise = [each.view is not None and program.shapes[value].shape == shape
                 for each, value in zip(found, operation.inputs, strict=True)]  # fmt: skip
    views = {each.view for each, is_point in zip(found, pointwise, strict=True) if is_point}
    if len(views) != 1:
        return _Value(None, is_nonlinear=False)
    nonlinear = any(each.is_nonlinear for each, is_point in zip(found, pointwise, strict=True)
                    if is_point)  # fmt: skip
    return _Value(views.pop(), nonlinear or not is_linear(operation.name, pointwise))


def _of_move(
    program: Program, operation: Operation, region: Mapping[int, _Value], shape: tuple[int, ...]
) -> _Value:
    found = region.get(operation.inputs[0])
    if found is None or found.view is None:
        return _Value(None, is_nonlinear=False)
    return found._replace(view=moved(found.view, operation, shape))


def _is_whole(view: View | None, whole: View) -> bool:
    """Whether a view has every axis of the start in one piece as it was, in any order."""
    if view is None:
        return False
    axes = [parts[0] for parts in view if parts and parts[0].size != 1]
    wanted = [parts[0] for parts in whole if parts[0].size != 1]
    is_in_one_piece = all(len(parts) <= 1 for parts in view)
    # Digits are compared by axis: sizes may be symbols, which have no order.
    return is_in_one_piece and _by_axis(axes) == _by_axis(wanted)


def _by_axis(digits: list[Digit]) -> list[Digit]:
    return sorted(digits, key=lambda digit: digit.axis)


def _leading_to(program: Program, region: Mapping[int, _Value], ends: list[int]) -> set[int]:
    """Values of a region that some of its values are made of, and these."""
    inside = set(ends)
    for operation in reversed(program.operations):
        if inside.intersection(operation.outputs):
            inside.update(value for value in operation.inputs if value in region)
    return inside


def _sums_with_others(
    program: Program, value: int, region: Mapping[int, _Value], dependent: set[int]
) -> Iterator[int]:
    """Sums of a value with one that depends on the images and is not made of it alone."""
    for operation in program.operations:
        if operation.name in _SUMS and value in operation.inputs:
            others = [each for each in operation.inputs if each != value]
            if any(other in dependent and other not in region for other in others):
                yield operation.outputs[0]


def _composed(first: View, second: View) -> View:
    """The view of a view; the second one has every axis in one piece."""
    return tuple(first[parts[0].axis] if parts else () for parts in second)
