"""Tensors under PyTorch's names as the leaves of a network that they clearly mean."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jnnk.network import Conv, Network
from jnnk.network._flattened import Flattened, flattened_maps
from jnnk.network._names import leaf_path

#: PyTorch's names of a layer's tensors, by (collection, name of the leaf).
_NAMES = {
    ("params", "kernel"): "weight",
    ("params", "weight"): "weight",
    ("params", "w"): "weight",
    ("params", "scale"): "weight",
    ("params", "bias"): "bias",
    ("params", "b"): "bias",
    ("params", "offset"): "bias",
    ("batch_stats", "mean"): "running_mean",
    ("batch_stats", "var"): "running_var",
}


class FoundTensors(NamedTuple):
    """What a file tells of a network's leaves.

    Attributes:
        arrays: by path of the leaf, in its layout.
        unclear: paths of leaves that have a tensor, whose layout does not tell theirs.
        left: names that mean no leaf.
    """

    arrays: dict[str, np.ndarray]
    unclear: list[str]
    left: list[str]


def torch_tensors(
    tensors: Mapping[str, np.ndarray], leaves: Mapping[str, Any], network: Network
) -> FoundTensors:
    """The leaves that a file under PyTorch's names tells.

    Args:
        tensors: by PyTorch's names.
        leaves: of the network's variables, or their shapes, by path.
        network: as read with them.
    """
    convs = {leaf_path(conv.path): conv for conv in network.convs}
    flattened = flattened_maps(network, list(leaves))
    arrays: dict[str, np.ndarray] = {}
    unclear: list[str] = []
    used: set[str] = set()
    for path, leaf in leaves.items():
        collection, *layer, last = path.split("/")
        torch_name = _NAMES.get((collection, last))
        name = ".".join((*layer, torch_name or last))
        if torch_name is not None and name in tensors:
            used.add(name)
            maps = flattened.get(path)
            array = _in_layout(tensors[name], leaf, last, convs.get(path), maps)
            if array is None:
                unclear.append(path)
            else:
                arrays[path] = array
    ignored = {name for name in tensors if name.endswith("num_batches_tracked")}
    left = [name for name in tensors if name not in used | ignored]
    return FoundTensors(arrays, unclear, left)


def _in_layout(
    tensor: np.ndarray, leaf: Any, last: str, conv: Conv | None, flattened: Flattened | None
) -> np.ndarray | None:
    """A tensor in the layout of its leaf; None where that is not clear."""
    if conv is not None:
        axes = conv.axes
        if conv.is_transposed or axes.stack:
            return None
        if tensor.ndim != len(conv.kernel_shape):
            return tensor
        of_leaf = {axes.output: 0, axes.input: 1}
        of_leaf |= {axis: 2 + place for place, axis in enumerate(axes.spatial)}
        return tensor.transpose([of_leaf[axis] for axis in range(tensor.ndim)])
    if tensor.ndim == 2 == len(leaf.shape):
        return _dense(tensor, last, flattened)
    is_vector = tensor.ndim == 1 and tensor.size == math.prod(leaf.shape)
    return tensor.reshape(leaf.shape) if is_vector else tensor


def _dense(tensor: np.ndarray, last: str, flattened: Flattened | None) -> np.ndarray | None:
    """Weights of a dense layer, (outputs, inputs) in PyTorch."""
    if flattened is not None:
        if flattened.channel_axis is None:
            return None
        channels = flattened.shape[flattened.channel_axis]
        positions = [size for axis, size in enumerate(flattened.shape)
                     if axis != flattened.channel_axis]  # fmt: skip
        if tensor.shape[1] != channels * int(np.prod(positions)):
            return tensor
        maps = tensor.reshape(len(tensor), channels, *positions)
        tensor = np.moveaxis(maps, 1, 1 + flattened.channel_axis).reshape(len(tensor), -1)
    return tensor if last == "weight" else tensor.T
