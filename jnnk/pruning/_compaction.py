"""Remove what a mask killed: a smaller network with the same outputs.

A filter without a live kernel puts out a constant, whatever the image: what BatchNorm's shift makes
of zero. If ReLU makes that 0, the filter and the kernels that read it are dropped. If not, it
cannot become a bias of the next conv, which sees zeros in its padding: all such filters of a layer
are merged into one channel that is 1 everywhere and, being the same for every image, costs one
image a batch; its kernel is the sum of theirs times the constants. A filter that no live kernel
reads is dropped too, which may kill others in turn.

The network tells its wiring as data, and is rebuilt from data: ``model.convs()`` and
``model.with_thin(...)``, as documented in ``jnnk.models.channels``.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jnnk.pruning._conv_leaves import PyTree
from jnnk.pruning._masks import apply_masks

Flat = dict[str, np.ndarray]


def compact(
    model: nn.Module, variables: PyTree, masks: PyTree, *, norm_epsilon: float = 1e-5
) -> tuple[nn.Module, PyTree]:
    """Build the network without the filters and input channels that a mask kills.

    Where a conv adds to a residual stream, its dead filters leave the conv but not the stream:
    their constants are added instead. Where it reads one, the stream's channels that it ignores are
    not read. A conv that is wholly dead keeps one filter.

    Args:
        model: a model with ``convs()`` and ``with_thin()``, not thinned yet; BatchNorm uses its
            running statistics, followed by ReLU where a conv's readers are known.
        variables: its ``params`` and ``batch_stats``.
        masks: a mask of its ``params``.
        norm_epsilon: epsilon of the model's BatchNorm.

    Returns:
        The thinned model and its variables: same logits (up to rounding) as ``model`` with masked
        parameters. Activations of thinned inner layers have fewer channels.

    Raises:
        TypeError: if the model does not tell its wiring.
        ValueError: if the model is thinned already.
    """
    if not (hasattr(model, "convs") and hasattr(model, "with_thin")):
        raise TypeError(f"model: expected one with convs() and with_thin(), got {type(model)}")
    if getattr(model, "thin", None):
        raise ValueError("model: expected one that is not thinned yet")
    params = _flat(apply_masks(variables["params"], masks))
    stats = _flat(variables.get("batch_stats", {}))
    infos = {info.conv: info for info in model.convs()}
    producers = {reader: conv for conv, info in infos.items() for reader in info.readers}
    constants = {
        conv: _output_of_dead_filters(info, params, stats, norm_epsilon)
        for conv, info in infos.items()
    }
    kept = _kept_filters(infos, producers, constants, params)

    thin: dict[str, dict[str, Any]] = {}
    small_params, small_stats = dict(params), dict(stats)
    for conv, info in infos.items():
        fields: dict[str, Any] = {}
        kernel = params[f"{conv}/kernel"][..., kept[conv]]
        if conv in producers:
            producer = producers[conv]
            of_constants = np.einsum(
                "hwio,i->hwo", kernel[:, :, ~kept[producer]], constants[producer][~kept[producer]]
            )
            kernel = kernel[:, :, kept[producer]]
            if of_constants.any():
                fields["constant"] = True
                small_params[f"{conv}_constant/kernel"] = of_constants[:, :, None]
        else:
            reads = _at_least_one(_is_nonzero(kernel).any(axis=1))
            if not reads.all():
                fields["reads"] = np.flatnonzero(reads).tolist()
                kernel = kernel[:, :, reads]
        if not kept[conv].all():
            if info.readers:
                fields["width"] = int(kept[conv].sum())
            else:
                fields["writes"] = np.flatnonzero(kept[conv]).tolist()
                small_params[f"{conv}_rest"] = constants[conv][~kept[conv]]
        small_params[f"{conv}/kernel"] = kernel
        for path, values in (
            (conv, small_params),
            (info.norm, small_params),
            (info.norm, small_stats),
        ):
            for name in ("bias", "scale", "mean", "var"):
                if f"{path}/{name}" in values:
                    values[f"{path}/{name}"] = values[f"{path}/{name}"][kept[conv]]
        if fields:
            thin[conv] = fields

    for reader in producers.keys() - infos.keys():
        producer = producers[reader]
        kernel = _by_channel(params[f"{reader}/kernel"], len(kept[producer]))
        dead = ~kept[producer]
        extra = np.einsum("pco,c->o", kernel[:, dead], constants[producer][dead])
        small_params[f"{reader}/kernel"] = kernel[:, ~dead].reshape(-1, kernel.shape[2])
        small_params[f"{reader}/bias"] = params[f"{reader}/bias"] + extra

    small = {"params": _tree(small_params)}
    if stats:
        small["batch_stats"] = _tree(small_stats)
    return model.with_thin(thin), small


def _flat(tree: PyTree) -> Flat:
    return {path: np.asarray(leaf) for path, leaf in flatten_dict(tree, sep="/").items()}


def _tree(flat: Flat) -> PyTree:
    return jax.tree.map(jnp.asarray, unflatten_dict(flat, sep="/"))


def _is_nonzero(kernel: np.ndarray) -> np.ndarray:
    """Whether each kernel of ``(h, w, Cin, Cout)`` has a weight that is not zero."""
    return (kernel != 0).any(axis=(0, 1))


def _by_channel(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Weights of a dense layer on flattened maps, as ``(positions, channels, outputs)``."""
    return kernel.reshape(-1, channels, kernel.shape[1])


def _at_least_one(keep: np.ndarray) -> np.ndarray:
    return keep if keep.any() else np.arange(len(keep)) == 0


def _output_of_dead_filters(
    info: Any, params: Flat, stats: Flat, norm_epsilon: float
) -> np.ndarray:
    """What each filter of a conv would put out if its kernels were all zero ``(Cout,)``."""
    value = params.get(
        f"{info.conv}/bias", np.zeros(params[f"{info.conv}/kernel"].shape[3], np.float32)
    )
    if info.norm is not None:
        slope = params[f"{info.norm}/scale"] / np.sqrt(stats[f"{info.norm}/var"] + norm_epsilon)
        value = (value - stats[f"{info.norm}/mean"]) * slope + params[f"{info.norm}/bias"]
    # Behind a conv that feeds a residual stream, ReLU comes after the sum.
    return np.maximum(value, 0) if info.readers else value


def _kept_filters(
    infos: dict[str, Any], producers: dict[str, str], constants: Flat, params: Flat
) -> dict[str, np.ndarray]:
    """Filters that see something and are read by something: bool ``(Cout,)`` of each conv."""
    nonzero = {conv: _is_nonzero(params[f"{conv}/kernel"]) for conv in infos}
    kept = {conv: np.ones(kernels.shape[1], bool) for conv, kernels in nonzero.items()}

    def reads(reader: str, conv: str) -> np.ndarray:
        if reader in infos:
            return (nonzero[reader] & kept[reader]).any(axis=1)
        return (_by_channel(params[f"{reader}/kernel"], len(kept[conv])) != 0).any(axis=(0, 2))

    changed = True
    while changed:
        changed = False
        for conv, info in infos.items():
            seen = np.ones(len(nonzero[conv]), bool)
            if conv in producers:
                seen = kept[producers[conv]] | (constants[producers[conv]] != 0)
            keep = kept[conv] & (nonzero[conv] & seen[:, None]).any(axis=0)
            if info.readers:
                keep &= np.any([reads(reader, conv) for reader in info.readers], axis=0)
            changed |= bool((keep != kept[conv]).any())
            kept[conv] = keep
    return {conv: _at_least_one(keep) for conv, keep in kept.items()}
