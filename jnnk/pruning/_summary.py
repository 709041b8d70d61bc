"""What a mask leaves of a network: counts of kernels, filters, parameters and MACs by layer."""

from typing import NamedTuple

import jax
import numpy as np

from jnnk.network import Network
from jnnk.network._names import PyTree, leaf_path, leaves_by_path, named_leaves
from jnnk.pruning._conv_leaves import ConvLeaf, conv_leaves, path_in


class LayerSummary(NamedTuple):
    """Counts of one conv layer; each pair is (whole, kept by the mask).

    Attributes:
        path: path of the kernel, such as ``"layer1_0/conv1/kernel"``.
        kernels: ``h x w`` kernels, ``Cin * Cout`` in all; of grouped convolutions Cin is a group's.
        filters: filters, kept if any of their kernels is.
        params: weights of the kernels.
        macs: multiply-accumulates of all its calls for one image; None where no network was given.
    """

    path: str
    kernels: tuple[int, int]
    filters: tuple[int, int]
    params: tuple[int, int]
    macs: tuple[int, int] | None


class MaskSummary(NamedTuple):
    """Counts of a network; each pair is (whole, kept by the mask).

    Attributes:
        layers: one ``LayerSummary`` for each conv layer.
        kernels: kernels of all conv layers.
        filters: filters of all conv layers.
        params: all parameters of the network; only kernels' weights are ever pruned.
        macs: of all conv layers; None where no network was given.
    """

    layers: tuple[LayerSummary, ...]
    kernels: tuple[int, int]
    filters: tuple[int, int]
    params: tuple[int, int]
    macs: tuple[int, int] | None


def summarize(params: PyTree, masks: PyTree, *, network: Network | None = None) -> MaskSummary:
    """Kernels, filters, parameters and MACs of a network, whole and under a mask.

    Args:
        params: pytree of parameters.
        masks: a mask of them.
        network: as `jnnk.network.read` reads it, with the shapes of ``params``. Without it no MACs
            are counted, and kernels are told as by `jnnk.make_masks`.

    Returns:
        The counts.
    """
    kept = named_leaves(masks)
    macs = {} if network is None else _macs_by_leaf(params, network)
    layers = tuple(
        _summarize_layer(path, conv, np.asarray(conv.keep(kept[path])), macs.get(path))
        for path, conv in conv_leaves(params, network=network).items()
    )
    total = sum(leaf.size for leaf in jax.tree.leaves(params))
    conv_params = _total([layer.params for layer in layers])
    of_layers = [layer.macs for layer in layers if layer.macs is not None]
    return MaskSummary(
        layers=layers,
        kernels=_total([layer.kernels for layer in layers]),
        filters=_total([layer.filters for layer in layers]),
        params=(total, total - conv_params[0] + conv_params[1]),
        macs=_total(of_layers) if len(of_layers) == len(layers) else None,
    )


def _macs_by_leaf(params: PyTree, network: Network) -> dict[str, int]:
    """MACs of one image in all calls of the convolution at each path."""
    macs: dict[str, int] = {}
    paths = leaves_by_path(params)
    for conv in network.convs:
        path = leaf_path(path_in(paths, conv.path))
        macs[path] = macs.get(path, 0) + conv.macs
    return macs


def _summarize_layer(path: str, conv: ConvLeaf, keep: np.ndarray, macs: int | None) -> LayerSummary:
    height, width, num_inputs, num_filters = conv.kernel_shape
    kernels = (num_inputs * num_filters, int(keep.sum()))
    return LayerSummary(
        path=path,
        kernels=kernels,
        filters=(num_filters, int(keep.any(axis=0).sum())),
        params=(height * width * kernels[0], height * width * kernels[1]),
        # Each kernel is used equally often.
        macs=None if macs is None else (macs, macs * kernels[1] // kernels[0]),
    )


def _total(pairs: list[tuple[int, int]]) -> tuple[int, int]:
    return sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)
