"""Channel shuffles, found in a program and told as what they are: a permutation of one axis.

A shuffle is written as a reshape into groups, a transpose and a reshape back. Any channels may be
left out of the whole; of what lies between, only those that form a rectangle.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

import numpy as np

from jnnk.network._patterns import Shape, matching_axes
from jnnk.network._program import Operation, Program


class Shuffle(NamedTuple):
    """A permutation of one axis, in the place of an `Operation`.

    Attributes:
        name: ``"shuffle"``.
        params: the ``axis``, and its ``order``: the index in the input of each index.
        inputs: the number of the value read.
        outputs: the number of the value made.
    """

    name: str
    params: Mapping[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def with_shuffles(program: Program) -> Program:
    """The program with its channel shuffles as single operations."""
    makers = {operation.outputs[0]: operation for operation in program.operations}
    operations = [_shuffle_of(program, operation, makers) for operation in program.operations]
    return replace(program, operations=tuple(operations))


def _shuffle_of(
    program: Program, operation: Operation, makers: Mapping[int, Operation]
) -> Operation:
    """A shuffle for the last of its three operations; any other operation as it is."""
    chain = [operation]
    while len(chain) < 3 and chain[0].inputs and chain[0].inputs[0] in makers:
        chain.insert(0, makers[chain[0].inputs[0]])
    if [each.name for each in chain] != ["reshape", "transpose", "reshape"]:
        return operation
    source = chain[0].inputs[0]
    shape = program.shapes[source].shape
    split = program.shapes[chain[0].outputs[0]].shape
    if tuple(program.shapes[operation.outputs[0]].shape) != tuple(shape):
        return operation
    found = _order(shape, split, chain[1].params["permutation"])
    if found is None:
        return operation
    axis, order = found
    shuffle = Shuffle("shuffle", {"axis": axis, "order": order}, (source,), operation.outputs)
    return cast(Operation, shuffle)


def _order(shape: Shape, split: Shape, permutation: Sequence[int]) -> tuple[int, np.ndarray] | None:
    """The axis that is split, shuffled and joined again, and its order; None if it is another."""
    groups = [
        (old, new) for old, new in matching_axes(shape, split) if len(old) != 1 or len(new) != 1
    ]
    if len(groups) != 1 or len(groups[0][0]) != 1:
        return None
    (axis,), parts = groups[0]
    moved = list(permutation)
    outside = [each for each in range(len(split)) if each not in parts]
    if any(moved[each] != each for each in outside) or not isinstance(shape[axis], int):
        return None
    sizes = [split[part] for part in parts]
    within = [moved[part] - parts[0] for part in parts]
    return axis, np.arange(shape[axis]).reshape(sizes).transpose(within).ravel()
