"""What a mask leaves of a network: counts of kernels, filters, parameters and MACs by layer."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.extend.core
import numpy as np
from jaxtyping import Shaped

from jnnk._core.arrays import ArrayLike
from jnnk.pruning._conv_leaves import PyTree, conv_kernels

OutputSizes = tuple[tuple[int, int], ...]
"""(height, width) of a layer's output, for each call of it."""


class LayerSummary(NamedTuple):
    """Counts of one conv layer; each pair is (whole, kept by the mask).

    Attributes:
        path: path of the kernel, such as ``"layer1_0/conv1/kernel"``.
        kernels: ``h x w`` kernels, ``Cin * Cout`` in all.
        filters: filters, kept if any of their kernels is.
        params: weights of the kernels.
        macs: multiply-accumulates of all its calls for one image; None where the sizes of their
            outputs are not known.
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
        macs: of all conv layers; None where that of a layer is not known.
    """

    layers: tuple[LayerSummary, ...]
    kernels: tuple[int, int]
    filters: tuple[int, int]
    params: tuple[int, int]
    macs: tuple[int, int] | None


def summarize(
    params: PyTree, masks: PyTree, *, output_sizes: Mapping[str, OutputSizes] | None = None
) -> MaskSummary:
    """Kernels, filters, parameters and MACs of a network, whole and under a mask.

    Args:
        params: pytree of parameters.
        masks: a mask of them.
        output_sizes: path of a conv layer (``"layer1_0/conv1"``) -> (height, width) of its output,
            for each call of it, as ``conv_output_sizes`` finds them. Without it no MACs are
            counted.

    Returns:
        The counts.
    """
    sizes = output_sizes or {}
    keep = conv_kernels(masks)
    layers = tuple(
        _summarize_layer(path, kernel.shape, np.asarray(keep[path][0, 0]) != 0, sizes)
        for path, kernel in conv_kernels(params).items()
    )
    total = sum(leaf.size for leaf in jax.tree.leaves(params))
    conv_params = _total([layer.params for layer in layers])
    macs = [layer.macs for layer in layers if layer.macs is not None]
    return MaskSummary(
        layers=layers,
        kernels=_total([layer.kernels for layer in layers]),
        filters=_total([layer.filters for layer in layers]),
        params=(total, total - conv_params[0] + conv_params[1]),
        macs=_total(macs) if len(macs) == len(layers) else None,
    )


def conv_output_sizes(
    model: nn.Module,
    variables: PyTree,
    inputs: Shaped[ArrayLike, "N H W C"] | jax.ShapeDtypeStruct,
) -> dict[str, OutputSizes]:
    """Height and width of every convolution's output, found without computing it.

    Args:
        model: a Flax model whose ``apply`` takes ``inputs`` alone.
        variables: its variables.
        inputs: images ``(N, H, W, C)``, or a ``jax.ShapeDtypeStruct``.

    Returns:
        Path of a conv layer, such as ``"layer1_0/conv1"`` -> (height, width) for each time that it
        sees an image: a layer called twice, or called once with two batches in one, has two.
        Nothing at all if a convolution runs in a loop of the program, whose calls are not seen.
    """
    sizes: dict[str, OutputSizes] = {}
    num_images = inputs.shape[0]

    def record(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        out = call(*args, **kwargs)
        if isinstance(context.module, nn.Conv) and context.method_name == "__call__":
            path = "/".join(context.module.path)
            # What does not depend on the image may be computed for one and serve all.
            times = max(math.prod(out.shape[:-3]) // num_images, 1)
            sizes[path] = sizes.get(path, ()) + (out.shape[-3:-1],) * times
        return out

    with nn.intercept_methods(record):
        program = jax.make_jaxpr(model.apply)(variables, inputs)
    return {} if _loops_over_convs(program.jaxpr) else sizes


def _loops_over_convs(jaxpr: jax.extend.core.Jaxpr, *, in_loop: bool = False) -> bool:
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name == "conv_general_dilated" and in_loop:
            return True
        inner = in_loop or name in ("scan", "while")
        if any(_loops_over_convs(each, in_loop=inner) for each in _inner_jaxprs(equation.params)):
            return True
    return False


def _inner_jaxprs(params: Mapping[str, Any]) -> Iterator[jax.extend.core.Jaxpr]:
    for value in jax.tree.leaves(list(params.values()), is_leaf=_is_jaxpr):
        if _is_jaxpr(value):
            yield getattr(value, "jaxpr", value)


def _is_jaxpr(value: Any) -> bool:
    return isinstance(value, jax.extend.core.Jaxpr | jax.extend.core.ClosedJaxpr)


def _summarize_layer(
    path: str, shape: tuple[int, ...], keep: np.ndarray, sizes: Mapping[str, OutputSizes]
) -> LayerSummary:
    area = shape[0] * shape[1]
    kernels = (keep.size, int(keep.sum()))
    params = (area * kernels[0], area * kernels[1])
    layer = path.removeprefix("params/").removesuffix("/kernel")
    positions = sum(h * w for h, w in sizes[layer]) if layer in sizes else None
    return LayerSummary(
        path=path,
        kernels=kernels,
        filters=(keep.shape[1], int(keep.any(axis=0).sum())),
        params=params,
        macs=None if positions is None else (positions * params[0], positions * params[1]),
    )


def _total(pairs: list[tuple[int, int]]) -> tuple[int, int]:
    return sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)
