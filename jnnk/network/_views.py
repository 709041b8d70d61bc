"""Where the axes of an array end up when it is transposed and reshaped.

A view says of each axis which parts of the axes of a first array lie along it. Splitting channels
into groups and joining them again, as GroupNorm does, gives the first view back, and so does
reversing an axis twice.
"""

from collections.abc import Sequence
from typing import NamedTuple

from jnnk.network._program import Operation


class Digit(NamedTuple):
    """A digit of the index along an axis of the first array: ``index // inner % size``.

    Attributes:
        axis: which axis.
        size: number of values of the digit; that of the axis if it is the whole index.
        inner: number of values of all digits behind it.
        is_reversed: whether its values come from the last to the first.
    """

    axis: int
    size: int
    inner: int
    is_reversed: bool = False


View = tuple[tuple[Digit, ...], ...]
"""Of each axis of an array, the digits along it, the outermost first."""


def whole_view(shape: Sequence[int]) -> View:
    """The view of an array as it is."""
    return tuple((Digit(axis, size, 1),) for axis, size in enumerate(shape))


def moved(view: View, operation: Operation, shape: Sequence[int]) -> View | None:
    """The view after an operation that only moves elements; None after any other.

    Args:
        view: of the operation's first input.
        operation: the operation.
        shape: of its output.
    """
    match operation.name:
        case "transpose":
            return tuple(view[axis] for axis in operation.params["permutation"])
        case "rev":
            turned = operation.params["dimensions"]
            return tuple(
                tuple(map(_reversed, parts)) if axis in turned else parts
                for axis, parts in enumerate(view)
            )
        case "reshape":
            return reshaped(view, shape)
        case "squeeze":
            gone = operation.params["dimensions"]
            return tuple(parts for axis, parts in enumerate(view) if axis not in gone)
        case "expand_dims":
            return reshaped(view, shape)
        case "broadcast_in_dim":
            return _broadcast(view, operation.params["broadcast_dimensions"], shape)
    return None


def reshaped(view: View, shape: Sequence[int]) -> View | None:
    """The view after a reshape; None where it cuts an axis into unequal parts."""
    if [_size(parts) for parts in view] == list(shape):
        return view
    if any(isinstance(size, int) and size == 0 for size in shape):
        return None
    waiting = [part for parts in view for part in parts if part.size != 1]
    axes: list[tuple[Digit, ...]] = []
    for size in shape:
        parts: list[Digit] = []
        while size != 1:  # of a symbolic size it cannot be told whether it is more than 1
            part = waiting.pop(0)
            if size % part.size == 0:
                parts.append(part)
                size //= part.size
            elif part.size % size == 0:
                rest = part.size // size
                parts.append(part._replace(size=size, inner=part.inner * rest))
                waiting.insert(0, part._replace(size=rest))
                size = 1
            else:
                return None
        axes.append(_joined(parts))
    return tuple(axes)


def _reversed(digit: Digit) -> Digit:
    return digit._replace(is_reversed=not digit.is_reversed)


def _joined(parts: Sequence[Digit]) -> tuple[Digit, ...]:
    """The digits, with neighbours that are digits of one index as one."""
    joined: list[Digit] = []
    for part in parts:
        last = joined[-1] if joined else None
        goes_on = (part.axis, part.size * part.inner, part.is_reversed)
        if last and (last.axis, last.inner, last.is_reversed) == goes_on:
            joined[-1] = part._replace(size=last.size * part.size)
        else:
            joined.append(part)
    return tuple(joined)


def _broadcast(view: View, axes: Sequence[int], shape: Sequence[int]) -> View | None:
    """The view with new axes of size 1; None where elements are repeated."""
    wider: list[tuple[Digit, ...]] = [()] * len(shape)
    for parts, axis in zip(view, axes, strict=True):
        wider[axis] = parts
    is_same = all(_size(parts) == size for parts, size in zip(wider, shape, strict=True))
    return tuple(wider) if is_same else None


def _size(parts: Sequence[Digit]) -> int:
    size = 1
    for part in parts:
        size *= part.size
    return size
