"""Weights from and to files of other frameworks. Nothing is ever unpickled.

PyTorch's names follow from ours (`torch_name`): ``layer1_0/conv1/kernel`` is
``layer1.0.conv1.weight``, ``layer2_0/downsample_bn`` is ``layer2.0.downsample.1``; the dense layer
is ``fc``, as in torchvision, and ``linear`` in the CIFAR ResNets with shortcut A, as in
akamaster/pytorch_resnet_cifar10.
"""

import re
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

Variables = Mapping[str, Any]
_Shape = tuple[int, ...]
_Key = tuple[str, ...]  # ("params", "layer1_0", "conv1", "kernel")
_Tensor = tuple[_Shape, str]  # shape and dtype

_LEAVES = {
    ("params", "kernel"): "weight",
    ("params", "scale"): "weight",
    ("params", "bias"): "bias",
    ("batch_stats", "mean"): "running_mean",
    ("batch_stats", "var"): "running_var",
}


# What is converted to float32, as safetensors and NumPy name it.
_FLOATS = ("F32", "F16", "BF16", "F64", "float32", "float16", "bfloat16", "float64")


class WeightsError(ValueError):
    """A file of weights that cannot be read or written, or does not fit the model."""


def load_safetensors(
    model: nn.Module, path: str | Path, *, image_shape: _Shape | None = None
) -> Variables:
    """Reads weights saved from PyTorch.

    Kernels are transposed from OIHW to HWIO and the dense layer likewise; where it reads flattened
    activations, from PyTorch's order (channel, height, width) to ours. ``num_batches_tracked`` is
    ignored; the names ``linear`` and ``shortcut`` are understood, and a prefix that most names
    share is dropped: ``module.``, ``_orig_mod.``, ``model.``, ``backbone.`` or any other.

    Args:
        model: a model of `jnnk.models.create`.
        path: the file; its tensors are float32, or float16, bfloat16 or float64, which are
            converted.
        image_shape: ``(H, W, C)`` of the images that the weights are for. By default C is taken
            from the file and H = W = 32, which only a ConvNet's dense layer depends on.

    Returns:
        ``{"params": ..., "batch_stats": ...}`` for ``model.apply``, float32.

    Raises:
        WeightsError: the file is missing, unreadable or truncated, or a tensor is missing,
            superfluous, of another shape than the model's, or not of floats in the range of
            float32; the message names it.
    """
    if Path(path).exists() and not Path(path).is_file():
        raise WeightsError(f"{path}: not readable as safetensors: it is no file")
    try:
        with safe_open(path, framework="numpy") as file:
            stored = {}
            keys = sorted(file.keys())
            prefix = _shared_prefix(model, keys)
            for key in keys:
                name = _usual_name(model, key.removeprefix(prefix))
                if name in stored:
                    raise WeightsError(f"{path}: tensor {name!r} is there twice, under two names")
                if not name.endswith("num_batches_tracked"):
                    stored[name] = file.get_slice(key)
            found = {name: (tuple(t.get_shape()), t.get_dtype()) for name, t in stored.items()}
            if image_shape is None:
                shape, _ = found.get(torch_name(model, _first_kernel(model)), ((), ""))
                image_shape = (32, 32, shape[1] if len(shape) == 4 else 3)
            shapes = _shapes(model, image_shape)
            named = {key: torch_name(model, key) for key in shapes}
            expected = {name: (_torch_shape(shapes[key]), "F32") for key, name in named.items()}
            _check(path, expected, found)
            arrays = {key: _float32(path, name, stored[name][:]) for key, name in named.items()}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not readable as safetensors: {error}") from error
    channels = _flattened_channels(model)
    return _variables({key: _from_torch(value, channels) for key, value in arrays.items()})


def save_safetensors(
    model: nn.Module,
    variables: Variables,
    path: str | Path,
) -> None:
    """Writes weights under PyTorch's names and in its layout; `load_safetensors` reads them back.

    In PyTorch: ``module.load_state_dict(safetensors.torch.load_file(path))``.

    Args:
        model: the model that the variables belong to.
        variables: ``{"params": ..., "batch_stats": ...}``.
        path: the file; an existing one is replaced.

    Raises:
        WeightsError: the file cannot be written, or the weights are of a dtype that is not read.
    """
    arrays = {key: np.asarray(value) for key, value in _flat(variables).items()}
    for key, value in arrays.items():
        if value.dtype.name not in _FLOATS:
            raise WeightsError(
                f"{path}: cannot be written: {'/'.join(key)} is {value.dtype.name}, expected "
                "float32, float16, bfloat16 or float64"
            )
    channels = _flattened_channels(model)
    tensors = {
        torch_name(model, key): np.ascontiguousarray(_to_torch(value, channels))
        for key, value in arrays.items()
    }
    _save(tensors, path)


def save_masks(model: nn.Module, variables: Variables, masks: Any, path: str | Path) -> None:
    """Writes which weights are kept, as ``torch.nn.utils.prune`` has it.

    In PyTorch: ``prune.custom_from_mask(module.get_submodule(name), "weight", tensor)`` for each
    ``name.weight_mask`` of the file.

    Args:
        model: the model that the masks belong to.
        variables: its variables, for the shapes of its kernels.
        masks: like ``variables["params"]``: at conv kernels what broadcasts to them, not 0 where
            they are kept; other leaves are not read.
        path: the file; an existing one is replaced. Gets a boolean tensor ``(Cout, Cin, h, w)``,
            such as ``layer1.0.conv1.weight_mask``, for every conv.

    Raises:
        WeightsError: the file cannot be written.
    """
    kept = _flat(masks)
    tensors = {}
    for key, kernel in _flat(variables["params"]).items():
        if np.ndim(kernel) == 4:
            whole = np.broadcast_to(np.asarray(kept[key]) != 0, np.shape(kernel))
            name = f"{torch_name(model, ('params', *key))}_mask"
            tensors[name] = np.ascontiguousarray(_to_torch(whole, None))
    _save(tensors, path)


def _save(tensors: dict[str, np.ndarray], path: str | Path) -> None:
    """Writes the whole file or nothing, readable by whom the umask lets; no link is followed."""
    path = Path(path)
    partial = path.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise WeightsError(f"{path}: cannot be written: there is something else than a file")
        try:
            with partial.open("xb") as file:
                file.write(save(tensors))
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except (SafetensorError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WeightsError(f"{path}: cannot be written: {reason}") from error


def from_tensorflow(
    model: nn.Module, arrays: Mapping[str, np.ndarray], *, image_shape: _Shape = (32, 32, 3)
) -> Variables:
    """A ConvNet's weights from arrays in TensorFlow's layout (HWIO).

    Args:
        model: a `ConvNet`.
        arrays: ``W_conv0``, ``b_conv0``, ..., ``W_fc1``, ``b_fc1``, floats; as from ``np.load``.
        image_shape: ``(H, W, C)`` of the images that the weights are for.

    Returns:
        ``{"params": ...}`` for ``model.apply``, float32.

    Raises:
        WeightsError: an array is missing, superfluous, of another shape than the model's, or not
            of floats in the range of float32; the message names it. Or the model has BatchNorm.
    """
    if any(collection == "batch_stats" for collection, *_ in _keys(model)):
        raise WeightsError("arrays: those of ConvNets only are known, without BatchNorm")
    shapes = _shapes(model, image_shape)
    letters = {"kernel": "W", "bias": "b"}
    named = {
        (*outer, layer, leaf): f"{letters[leaf]}_{'fc1' if layer == 'fc' else layer}"
        for *outer, layer, leaf in shapes
    }
    found = {name: (array.shape, array.dtype.name) for name, array in arrays.items()}
    _check("arrays", {name: (shapes[key], "float32") for key, name in named.items()}, found)
    return _variables({key: _float32("arrays", name, arrays[name]) for key, name in named.items()})


def torch_name(model: nn.Module, key: _Key) -> str:
    """PyTorch's name of a variable.

    Args:
        model: the model that it belongs to.
        key: its path in the variables: ``("params", "layer1_0", "conv1", "kernel")``.
    """
    collection, *modules, leaf = key
    leaf = _LEAVES.get((collection, leaf), leaf)
    parts = [re.sub(r"^(layer\d+)_(\d+)$", r"\1.\2", module) for module in modules]
    name = ".".join([*parts, leaf])
    name = name.replace("downsample_conv", "downsample.0").replace("downsample_bn", "downsample.1")
    return re.sub(r"^fc\.", f"{_head(model)}.", name)


def _head(model: nn.Module) -> str:
    return "linear" if getattr(model, "shortcut", None) == "A" else "fc"


def _usual_name(model: nn.Module, key: str) -> str:
    """The name that `torch_name` gives what a file calls ``key``, without a shared prefix."""
    name = key.replace(".shortcut.", ".downsample.")
    return re.sub(r"^(fc|linear)\.", f"{_head(model)}.", name)


def _shared_prefix(model: nn.Module, keys: Sequence[str]) -> str:
    """What stands before the names of the model's tensors in most keys, such as ``"module."``."""
    known = {torch_name(model, key) for key in _keys(model)}
    prefixes = Counter(
        key[:start]
        for key in keys
        for start in (0, *(found.end() for found in re.finditer(r"[./]", key)))
        if _usual_name(model, key[start:]) in known
    )
    return max(sorted(prefixes), key=lambda prefix: prefixes[prefix], default="")


def _float32(source: str | Path, name: str, values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        converted = values.astype(np.float32)
    if (np.isfinite(values) & ~np.isfinite(converted)).any():
        raise WeightsError(f"{source}: {name!r} has values beyond the range of float32")
    return converted


def _keys(model: nn.Module) -> list[_Key]:
    """Paths of the model's variables, sorted."""
    return sorted(_shapes(model, (64, 64, 3)))


def _first_kernel(model: nn.Module) -> _Key:
    """Path of the kernel that sees the images: of the first conv beside all blocks."""
    tops = (key for key in _keys(model) if len(key) == 3 and key[2] == "kernel")
    return next(key for key in tops if key[1].startswith("conv"))


def _shapes(model: nn.Module, image_shape: _Shape) -> dict[_Key, _Shape]:
    """Shapes of the model's variables by path, without computing any."""
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    tree = jax.eval_shape(model.init, jax.random.key(0), images)
    return {key: leaf.shape for key, leaf in _flat(tree).items()}


def _check(
    source: str | Path, expected: Mapping[str, _Tensor], found: Mapping[str, _Tensor]
) -> None:
    """Raises `WeightsError` unless the same tensors with the same shapes and dtypes are there."""
    problems = []
    if missing := [name for name in expected if name not in found]:
        shape, dtype = expected[missing[0]]
        problems.append(
            f"{len(missing)} tensors are missing, such as {missing[0]!r} ({dtype} {shape})"
        )
    if extra := [name for name in found if name not in expected]:
        shape, dtype = found[extra[0]]
        problems.append(
            f"{len(extra)} tensors have no place in the model, such as {extra[0]!r} "
            f"({dtype} {shape})"
        )
    wrong = [name for name in expected if name in found and not _fits(expected[name], found[name])]
    if wrong:
        (shape, dtype), (found_shape, found_dtype) = expected[wrong[0]], found[wrong[0]]
        problems.append(
            f"{len(wrong)} tensors have another shape or dtype, such as {wrong[0]!r}: expected "
            f"{dtype} {shape}, found {found_dtype} {found_shape}"
        )
    if problems:
        raise WeightsError(f"{source}: not the weights of this model: {'; '.join(problems)}")


def _fits(expected: _Tensor, found: _Tensor) -> bool:
    return expected[0] == found[0] and found[1] in _FLOATS


def _torch_shape(shape: _Shape) -> _Shape:
    """PyTorch's order of the axes of a kernel of ours."""
    if len(shape) == 4:
        height, width, cin, cout = shape
        return (cout, cin, height, width)
    return shape[::-1]


def _flattened_channels(model: nn.Module) -> int | None:
    """Channels of the activations that the dense layer reads flattened; None if it reads means."""
    return getattr(model, "channels", None)


def _from_torch(value: np.ndarray, channels: int | None) -> np.ndarray:
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    if value.ndim == 2:
        outputs, inputs = value.shape
        by_position = value.reshape(outputs, channels or inputs, -1)
        return by_position.transpose(2, 1, 0).reshape(inputs, outputs)
    return value


def _to_torch(value: np.ndarray, channels: int | None) -> np.ndarray:
    if value.ndim == 4:
        return value.transpose(3, 2, 0, 1)
    if value.ndim == 2:
        inputs, outputs = value.shape
        by_position = value.reshape(-1, channels or inputs, outputs)
        return by_position.transpose(2, 1, 0).reshape(outputs, inputs)
    return value


def _flat(tree: Mapping[str, Any]) -> dict[_Key, Any]:
    """The leaves of a tree of variables by their paths."""
    return cast(dict[_Key, Any], flatten_dict(dict(tree)))


def _variables(arrays: Mapping[_Key, np.ndarray]) -> Variables:
    return unflatten_dict({key: jnp.asarray(value) for key, value in arrays.items()})
