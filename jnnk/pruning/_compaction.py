"""Remove what a mask killed: a smaller network with the same outputs.

A filter without a live kernel puts out a constant, whatever the image: what BatchNorm's shift makes
of zero. If ReLU makes that 0, the filter and the kernels that read it are dropped. If not, it
cannot become a bias of the next conv, which sees zeros in its padding: all such filters of a layer
are merged into one channel that is 1 everywhere and, being the same for every image, costs one
image a batch; its kernel is the sum of theirs times the constants. A filter that no live kernel
reads is dropped too, which may kill others in turn.

The network tells its wiring as data, and is rebuilt from data: ``model.convs()`` and
``model.with_thin(...)``.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from jnnk.network._names import PyTree
from jnnk.pruning._channels import Wiring
from jnnk.pruning._masks import apply_masks

Flat = dict[str, np.ndarray]
Fields = dict[str, bool | int | list[int]]


@runtime_checkable
class Thinnable(Protocol):
    """A network that tells its wiring, and can be built with fewer channels."""

    def convs(self) -> Iterable[Wiring]: ...

    def with_thin(self, thin: Mapping[str, Fields]) -> nn.Module: ...


class _Network(NamedTuple):
    """A masked network, and what is left of it.

    Attributes:
        params: masked parameters by path.
        stats: BatchNorm's running statistics by path.
        convs: the convs by path, in the order of the network.
        producers: path of a reader -> the conv whose output it reads, where that is known.
        constants: conv -> ``(Cout,)``, what each filter would put out with kernels of zeros.
        kept: conv -> bool ``(Cout,)``, the filters that stay.
    """

    params: Flat
    stats: Flat
    convs: dict[str, Wiring]
    producers: dict[str, str]
    constants: Flat
    kept: Flat


class _Thinned(NamedTuple):
    """One side of a conv, its inputs or its filters, thinned.

    Attributes:
        fields: what the network is told of it, see `jnnk.models.Thin`; empty where all is left.
        params: parameters that change, by path.
    """

    fields: Fields
    params: Flat


def compact(
    model: nn.Module, variables: PyTree, masks: PyTree, *, norm_epsilon: float = 1e-5
) -> tuple[nn.Module, PyTree]:
    """The network without the filters and input channels that a mask kills, and its variables.

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
    if not isinstance(model, Thinnable):
        raise TypeError(f"model: expected one with convs() and with_thin(), got {type(model)}")
    if getattr(model, "thin", None):
        raise ValueError("model: expected one that is not thinned yet")
    network = _masked_network(model.convs(), variables, masks, norm_epsilon)
    thin: dict[str, Fields] = {}
    params, stats = dict(network.params), dict(network.stats)
    for conv in network.convs:
        inputs, filters = _thinned_inputs(network, conv), _thinned_filters(network, conv)
        params |= inputs.params | filters.params
        stats |= _of_kept_filters(network, conv, network.stats)
        if fields := inputs.fields | filters.fields:
            thin[conv] = fields
    for reader in network.producers.keys() - network.convs.keys():
        params |= _thinned_dense(network, reader)
    small = {"params": _tree(params)}
    if stats:
        small["batch_stats"] = _tree(stats)
    return model.with_thin(thin), small


def _masked_network(
    convs: Iterable[Wiring], variables: PyTree, masks: PyTree, norm_epsilon: float
) -> _Network:
    params = _flat(apply_masks(variables["params"], masks))
    stats = _flat(variables.get("batch_stats", {}))
    infos = {info.conv: info for info in convs}
    producers = {reader: conv for conv, info in infos.items() for reader in info.readers}
    constants = {
        conv: _output_of_dead_filters(info, params, stats, norm_epsilon)
        for conv, info in infos.items()
    }
    kept = _kept_filters(infos, producers, constants, params)
    return _Network(params, stats, infos, producers, constants, kept)


def _thinned_inputs(network: _Network, conv: str) -> _Thinned:
    """The kernels of the kept filters of a conv, without the input channels that are gone."""
    path = f"{conv}/kernel"
    kernel = network.params[path][..., network.kept[conv]]
    if conv in network.producers:
        producer = network.producers[conv]
        kept, constants = network.kept[producer], network.constants[producer]
        of_constants = np.einsum("hwio,i->hwo", kernel[:, :, ~kept], constants[~kept])
        small = {path: kernel[:, :, kept]}
        if not of_constants.any():
            return _Thinned({}, small)
        constant = {f"{conv}_constant/kernel": of_constants[:, :, None]}
        return _Thinned({"constant": True}, constant | small)
    reads = _at_least_one(_any(_is_nonzero(kernel), axis=1))
    if reads.all():
        return _Thinned({}, {path: kernel})
    return _Thinned({"reads": np.flatnonzero(reads).tolist()}, {path: kernel[:, :, reads]})


def _thinned_filters(network: _Network, conv: str) -> _Thinned:
    """Which filters of a conv stay, and what is a number for each filter, of those that do."""
    kept = network.kept[conv]
    small = _of_kept_filters(network, conv, network.params)
    if kept.all():
        return _Thinned({}, small)
    if network.convs[conv].readers:
        return _Thinned({"width": int(kept.sum())}, small)
    rest = {f"{conv}_rest": network.constants[conv][~kept]}
    return _Thinned({"writes": np.flatnonzero(kept).tolist()}, rest | small)


def _of_kept_filters(network: _Network, conv: str, values: Flat) -> Flat:
    """The vectors that a conv and its BatchNorm have among the values, of the kept filters."""
    names = ("bias", "scale", "mean", "var")
    paths = [f"{layer}/{name}" for layer in (conv, network.convs[conv].norm) for name in names]
    return {path: values[path][network.kept[conv]] for path in paths if path in values}


def _thinned_dense(network: _Network, reader: str) -> Flat:
    """Parameters of a dense layer without inputs that are gone, their constants in its bias."""
    producer = network.producers[reader]
    kept, constants = network.kept[producer], network.constants[producer]
    kernel = _by_channel(network.params[f"{reader}/kernel"], len(kept))
    of_constants = np.einsum("pco,c->o", kernel[:, ~kept], constants[~kept])
    return {
        f"{reader}/kernel": kernel[:, kept].reshape(-1, kernel.shape[2]),
        f"{reader}/bias": network.params[f"{reader}/bias"] + of_constants,
    }


def _flat(tree: PyTree) -> Flat:
    leaves = cast(dict[str, Any], traverse_util.flatten_dict(tree, sep="/"))
    return {path: np.asarray(leaf) for path, leaf in leaves.items()}


def _tree(flat: Flat) -> PyTree:
    arrays = {path: jnp.asarray(leaf) for path, leaf in flat.items()}
    return cast(PyTree, traverse_util.unflatten_dict(arrays, sep="/"))


def _any(values: np.ndarray, *, axis: int | tuple[int, ...]) -> np.ndarray:
    return np.asarray(values.any(axis=axis))


def _is_nonzero(kernel: np.ndarray) -> np.ndarray:
    """Whether each kernel of ``(h, w, Cin, Cout)`` has a weight that is not zero."""
    return _any(kernel != 0, axis=(0, 1))


def _by_channel(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Weights of a dense layer on flattened maps, as ``(positions, channels, outputs)``."""
    return kernel.reshape(-1, channels, kernel.shape[1])


def _at_least_one(keep: np.ndarray) -> np.ndarray:
    return keep if keep.any() else np.arange(len(keep)) == 0


def _output_of_dead_filters(
    info: Wiring, params: Flat, stats: Flat, norm_epsilon: float
) -> np.ndarray:
    """What each filter of a conv would put out if its kernels were all zero ``(Cout,)``."""
    without_bias = np.zeros(params[f"{info.conv}/kernel"].shape[3], np.float32)
    value = params.get(f"{info.conv}/bias", without_bias)
    if info.norm is not None:
        slope = params[f"{info.norm}/scale"] / np.sqrt(stats[f"{info.norm}/var"] + norm_epsilon)
        value = (value - stats[f"{info.norm}/mean"]) * slope + params[f"{info.norm}/bias"]
    # Behind a conv that feeds a residual stream, ReLU comes after the sum.
    return np.maximum(value, 0) if info.readers else value


def _kept_filters(
    convs: dict[str, Wiring], producers: dict[str, str], constants: Flat, params: Flat
) -> Flat:
    """Filters that see something and are read by something: bool ``(Cout,)`` of each conv."""
    nonzero = {conv: _is_nonzero(params[f"{conv}/kernel"]) for conv in convs}
    kept = {conv: np.ones(kernels.shape[1], bool) for conv, kernels in nonzero.items()}

    def reads(reader: str, conv: str) -> np.ndarray:
        if reader in convs:
            return _any(nonzero[reader] & kept[reader], axis=1)
        kernel = _by_channel(params[f"{reader}/kernel"], len(kept[conv]))
        return _any(kernel != 0, axis=(0, 2))

    changed = True
    while changed:
        changed = False
        for conv, info in convs.items():
            seen = np.ones(len(nonzero[conv]), bool)
            if conv in producers:
                seen = kept[producers[conv]] | (constants[producers[conv]] != 0)
            keep = kept[conv] & _any(nonzero[conv] & seen[:, None], axis=0)
            if info.readers:
                keep &= np.any([reads(reader, conv) for reader in info.readers], axis=0)
            changed |= bool((keep != kept[conv]).any())
            kept[conv] = keep
    return {conv: _at_least_one(keep) for conv, keep in kept.items()}
