"""Which dense layers read maps that were flattened, and in which order.

PyTorch flattens maps (C, H, W), most networks in JAX (H, W, C): weights of the same dense layer lie
in another order.
"""

from typing import NamedTuple

from jnnk.network._linear import is_elementwise
from jnnk.network._network import Network
from jnnk.network._program import CONV, Operation, Program

_MOVES = ("broadcast_in_dim", "convert_element_type", "copy", "reshape", "squeeze", "transpose")


class Flattened(NamedTuple):
    """Maps of one image that a dense layer reads in one row.

    Attributes:
        shape: of the maps, in the order in which they are flattened.
        channel_axis: which of these axes is that of channels; None where that is not known.
    """

    shape: tuple[int, ...]
    channel_axis: int | None


def flattened_maps(network: Network, leaf_paths: list[str]) -> dict[str, Flattened]:
    """The dense layers that read flattened maps.

    Args:
        network: as read.
        leaf_paths: of the variables that it was read with, in their order.

    Returns:
        Path of the layer's weights -> the maps. Layers in a scan are not looked at.
    """
    program = network.program
    made_by = {value: each for each in program.operations for value in each.outputs}
    leaf_of = dict(zip(program.inputs, leaf_paths, strict=False))
    found: dict[str, Flattened] = {}
    for operation in program.operations:
        if operation.name in _MOVES and operation.inputs[0] in leaf_of:
            leaf_of[operation.outputs[0]] = leaf_of[operation.inputs[0]]
        elif operation.name == "dot_general":
            for maps, weights in (operation.inputs, reversed(operation.inputs)):
                if weights in leaf_of and maps not in leaf_of:
                    flattened = _flattened(program, made_by, maps)
                    if flattened is not None:
                        found[leaf_of[weights]] = flattened
    return found


def _flattened(program: Program, made_by: dict[int, Operation], value: int) -> Flattened | None:
    """The maps that a value is in one row, if it is."""
    while value in made_by:
        operation = made_by[value]
        before = max(operation.inputs, key=lambda each: program.shapes[each].size)
        if operation.name == "reshape":
            old, new = program.shapes[before].shape, program.shapes[value].shape
            if len(old) > 2 and sum(size > 1 for size in old[1:]) > 1 and len(new) < len(old):
                return Flattened(old[1:], _channel_axis(program, made_by, before))
        elif not is_elementwise(operation.equation) and operation.name not in _MOVES:
            return None
        value = before
    return None


def _channel_axis(program: Program, made_by: dict[int, Operation], value: int) -> int | None:
    """Which axis of maps of one image is that of channels, followed back to a convolution."""
    rank = len(program.shapes[value].shape)
    axes = list(range(rank))
    while value in made_by:
        operation = made_by[value]
        if operation.name == CONV:
            channel_axis = operation.params["dimension_numbers"].out_spec[1]
            return axes.index(channel_axis) - 1
        if operation.name == "transpose":
            permutation = operation.params["permutation"]
            axes = [permutation[axis] for axis in axes]
        value = max(operation.inputs, key=lambda each: program.shapes[each].size)
        if len(program.shapes[value].shape) != rank:
            return None
    return None
