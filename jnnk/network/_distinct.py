"""Which convolutions stand for their activations where several have the same ones.

A projection shortcut and the last convolution of its block are summed before the nonlinearity: the
activation behind the sum is that of both.
"""

from jnnk.network._convs import Conv
from jnnk.network._network import Network
from jnnk.network._program import CONV, Program
from jnnk.network._tracing import holds_conv, jaxprs_of
from jnnk.network._with_activations import Layer, layers_of


def distinct_layers(network: Network, *, num_images: int) -> list[Layer]:
    """The layers of a network, one for each array of activations.

    Of several convolutions with the same activations the one stands for them that has most
    convolutions before it, then the one with most MACs.

    Args:
        network: as read.
        num_images: layers that see another number are left out, such as one of patches.

    Returns:
        The layers, in the network's order.
    """
    chosen: dict[object, Conv] = {}
    rank = {
        conv.name: (_num_before(network.program, conv), conv.macs, -place)
        for place, conv in enumerate(network.convs)
    }
    for conv in network.convs:
        place = conv.activation.place
        chosen[place] = max(chosen.get(place, conv), conv, key=lambda each: rank[each.name])
    names = {conv.name for conv in chosen.values() if conv.activation.shape[0] == num_images}
    return [layer for layer in layers_of(network) if layer.conv.name in names]


def _num_before(program: Program, conv: Conv) -> int:
    """How many convolutions follow one another up to a conv, in the scan that it runs in."""
    for scan in conv.output.place.scans:
        body = program.operations[scan].body
        assert body is not None
        program = body
    found: dict[int, int] = {}
    for operation in program.operations:
        before = max((found.get(value, 0) for value in operation.inputs), default=0)
        is_one = operation.name == CONV or any(map(holds_conv, jaxprs_of(operation.equation)))
        found.update(dict.fromkeys(operation.outputs, before + is_one))
    return found[conv.output.place.value]
