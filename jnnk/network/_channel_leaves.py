"""Which parameters belong to the filters of a convolution besides its kernel: bias and norm."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jnnk.network._linear import is_elementwise, is_linear
from jnnk.network._program import Operation, Program

#: Operations that leave the elements as they are.
_MOVES = frozenset(("broadcast_in_dim", "expand_dims", "reshape", "squeeze", "transpose"))
_SUMS = ("add", "add_any", "sub")


class Applied(NamedTuple):
    """A leaf with a number for each channel that is applied to a convolution's output.

    Attributes:
        leaf: number of the leaf.
        axis: of the leaf, over channels.
        role: "scale" if it multiplies, "shift" if it is added, "statistic" if it enters otherwise,
            as the variance of BatchNorm.
    """

    leaf: int
    axis: int
    role: str


def applied_leaves(
    program: Program,
    values: set[int] | frozenset[int],
    dependent: set[int],
    num_leaves: int,
    channels: int,
) -> list[Applied]:
    """The leaves applied to the output of a convolution, in their order.

    Args:
        program: a network.
        values: of the output and what is made of it, up to the activation.
        dependent: numbers of the values that depend on the images.
        num_leaves: how many of the program's inputs are leaves; they come first.
        channels: number of channels.
    """
    makers = {output: each for each in program.operations for output in each.outputs}
    leaves = {number: leaf for leaf, number in enumerate(program.inputs[:num_leaves])}
    found: dict[int, Applied] = {}
    for operation in program.operations:
        if not values.intersection(operation.outputs) or not is_elementwise(operation.equation):
            continue
        for place, number in enumerate(operation.inputs):
            if number in dependent or not values.intersection(operation.inputs):
                continue
            for leaf_number, linear in _leaves_behind(number, makers, leaves):
                axis = _axis_of(program.shapes[leaf_number].shape, channels)
                if axis is not None:
                    role = _role(operation, place, linear=linear)
                    leaf = leaves[leaf_number]
                    found.setdefault(leaf, Applied(leaf, axis, role))
    return list(found.values())


def _leaves_behind(
    number: int, makers: Mapping[int, Operation], leaves: Mapping[int, int]
) -> list[tuple[int, bool]]:
    """The leaves that a value is computed from, and whether it is linear in them."""
    found: list[tuple[int, bool]] = []
    waiting = [(number, True)]
    seen: set[tuple[int, bool]] = set()
    while waiting:
        number, linear = each = waiting.pop()
        if each in seen:
            continue
        seen.add(each)
        if number in leaves:
            found.append((number, linear))
        elif number in makers:
            maker = makers[number]
            for read in maker.inputs:
                moves = maker.name in _MOVES
                alone = [other == read for other in maker.inputs]
                waiting.append((read, linear and (moves or is_linear(maker.name, alone))))
    return found


def _role(operation: Operation, place: int, *, linear: bool) -> str:
    is_factor = operation.name == "mul" or (operation.name == "div" and place == 0)
    if linear and is_factor:
        return "scale"
    return "shift" if linear and operation.name in _SUMS else "statistic"


def _axis_of(shape: Sequence[int], channels: int) -> int | None:
    """The only axis of a leaf that is longer than 1, if it is as long as there are channels."""
    longer = [axis for axis, size in enumerate(shape) if size > 1]
    if not longer and len(shape) == 1 and channels == 1:
        return 0
    return longer[0] if len(longer) == 1 and shape[longer[0]] == channels else None
