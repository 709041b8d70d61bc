"""Which dense layers read maps that were flattened, and in which order.

PyTorch flattens maps (C, H, W), most networks in JAX (H, W, C): weights of the same dense layer lie
in another order.
"""

from typing import NamedTuple

from jnnk.network._linear import is_elementwise
from jnnk.network._network import Network
from jnnk.network._program import Operation, Program

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
    channel_axes = _channel_axes(network)
    leaf_of = dict(zip(program.inputs, leaf_paths, strict=False))
    found: dict[str, Flattened] = {}
    for operation in program.operations:
        if operation.name in _MOVES and operation.inputs[0] in leaf_of:
            leaf_of[operation.outputs[0]] = leaf_of[operation.inputs[0]]
        elif operation.name == "dot_general":
            for maps, weights in (operation.inputs, reversed(operation.inputs)):
                if weights in leaf_of and maps not in leaf_of:
                    flattened = _flattened(program, made_by, channel_axes, maps)
                    if flattened is not None:
                        found[leaf_of[weights]] = flattened
    return found


def _channel_axes(network: Network) -> dict[int, int]:
    """Number of a value that is a convolution's output or activation -> its axis of channels."""
    found: dict[int, int] = {}
    for conv in network.convs:
        for maps in (conv.output, conv.activation):
            if not maps.place.scans:
                axes = [parts[0].axis if parts else None for parts in maps.view]
                found[maps.place.value] = axes.index(maps.order[-1])
    return found


def _flattened(
    program: Program, made_by: dict[int, Operation], channel_axes: dict[int, int], value: int
) -> Flattened | None:
    """The maps that a value is in one row, if it is."""
    while value in made_by:
        operation = made_by[value]
        before = _largest(program, operation)
        if operation.name == "reshape":
            old, new = program.shapes[before].shape, program.shapes[value].shape
            if len(old) > 2 and sum(size > 1 for size in old[1:]) > 1 and len(new) < len(old):
                return Flattened(old[1:], _channel_axis(program, made_by, channel_axes, before))
        elif not is_elementwise(operation.equation) and operation.name not in _MOVES:
            return None
        value = before
    return None


def _channel_axis(
    program: Program, made_by: dict[int, Operation], channel_axes: dict[int, int], value: int
) -> int | None:
    """Which axis of maps of one image is that of channels, followed back to a convolution."""
    rank = len(program.shapes[value].shape)
    axes = list(range(rank))
    while len(program.shapes[value].shape) == rank:
        if value in channel_axes:
            return axes.index(channel_axes[value]) - 1
        if value not in made_by:
            return None
        operation = made_by[value]
        if operation.name == "transpose":
            permutation = operation.params["permutation"]
            axes = [permutation[axis] for axis in axes]
        value = _largest(program, operation)
    return None


def _largest(program: Program, operation: Operation) -> int:
    """The input of an operation with most elements, which maps are beside parameters."""
    return max(operation.inputs, key=lambda value: program.shapes[value].size)
