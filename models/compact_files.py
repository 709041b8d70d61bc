"""Networks on disk, whole or thinned: weights with what it takes to build their model again.

A safetensors file as `save_safetensors` writes it, whose metadata describes the model as JSON.
Nothing in it is executed: the description chooses among the classes and values known here.
"""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from safetensors import SafetensorError, safe_open

from .channels import Thin
from .convnet import ConvNet, LayerSpec
from .resnet import ResNet
from .weights import Variables, WeightsError, kernel_shapes, load_safetensors, save_safetensors

_FORMAT = "jnnk network 1"
LARGEST = 2**20
"""Numbers of channels, classes and pixels are below."""


def save_compact(
    model: nn.Module,
    variables: Variables,
    path: str | Path,
    *,
    image_shape: tuple[int, int, int] = (32, 32, 3),
) -> None:
    """Writes a network that `load_compact` builds again, such as one of `jnnk.pruning.compact`.

    The file can also be read by `load_safetensors`, into a model thinned alike.

    Args:
        model: a `ResNet` or `ConvNet`, thinned or not.
        variables: ``{"params": ..., "batch_stats": ...}``.
        path: the file; an existing one is replaced.
        image_shape: ``(H, W, C)`` of the images that the network is for.

    Raises:
        WeightsError: another model, or the file cannot be written.
    """
    fields = _KINDS.get(type(model).__name__)
    if fields is None:
        known = ", ".join(_KINDS)
        raise WeightsError(f"model: expected one of {known}, got {type(model).__name__}")
    values = {name: getattr(model, name) for name in fields}
    values["dtype"] = jnp.dtype(model.dtype).name
    values["thin"] = {conv: entry._asdict() for conv, entry in model.thin.items()}
    description = {
        "kind": type(model).__name__,
        "fields": values,
        "image_shape": [int(size) for size in image_shape],
    }
    metadata = {"format": _FORMAT, "network": json.dumps(description)}
    save_safetensors(model, variables, path, metadata=metadata)


def load_compact(path: str | Path) -> tuple[nn.Module, Variables]:
    """Reads a network written by `save_compact`.

    Args:
        path: the file.

    Returns:
        The model, thinned as it was, and its variables, float32.

    Raises:
        WeightsError: the file is missing, unreadable, or describes no network of ours, or one that
            its tensors do not fit.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not readable as safetensors: {error}") from error
    if metadata.get("format") != _FORMAT:
        raise WeightsError(f"{path}: expected a file of save_compact, found no network described")
    try:
        description = json.loads(metadata.get("network", ""))
        image_shape = _sizes(description["image_shape"], length=3)
        model = _build(description["kind"], description["fields"], image_shape)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{path}: describes no network that is known here: {error!r}") from error
    return model, load_safetensors(model, path, image_shape=image_shape)


def _build(kind: str, fields: Any, image_shape: tuple[int, ...]) -> nn.Module:
    """The model that a description tells; what is wrong in it raises a ValueError or the like."""
    parsers = _KINDS[kind]
    if set(fields) != set(parsers) | {"thin"}:
        raise ValueError(f"expected the fields {', '.join(parsers)} and thin")
    values = {name: parse(fields[name]) for name, parse in parsers.items()}
    whole = _CLASSES[kind](**values)
    thin = {conv: _thin_fields(entry) for conv, entry in fields["thin"].items()}
    model = whole.with_thin(thin)
    for conv, shape in kernel_shapes(whole, image_shape).items():
        entry = model.thin.get(conv, Thin())
        if entry.reads is not None and entry.reads[-1] >= shape[2]:
            raise ValueError(f"{conv!r} reads channel {entry.reads[-1]} of {shape[2]}")
        if entry.writes is not None and entry.writes[-1] >= shape[3]:
            raise ValueError(f"{conv!r} writes channel {entry.writes[-1]} of {shape[3]}")
    jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *image_shape)))
    return model


def _size(value: Any, *, least: int = 1) -> int:
    if type(value) is not int or not least <= value < LARGEST:
        raise ValueError(
            f"expected a whole number of {least} or more and below {LARGEST}, got {value!r}"
        )
    return value


def _sizes(value: Any, *, length: int | None = None, least: int = 1) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) != (length or len(value)) or len(value) > LARGEST:
        raise ValueError(f"expected a list of whole numbers, got {value!r}")
    return tuple(_size(each, least=least) for each in value)


def _one_of(*known: Any) -> Callable[[Any], Any]:
    def parse(value: Any) -> Any:
        if type(value) is not type(known[0]) or value not in known:
            raise ValueError(f"expected one of {known}, got {value!r}")
        return value

    return parse


def _dtype(value: Any) -> Any:
    return getattr(jnp, _one_of("float32", "bfloat16", "float16")(value))


def _stages(value: Any) -> tuple[int, ...]:
    sizes = _sizes(value)
    if sum(sizes) > 1000:
        raise ValueError(f"expected 1000 blocks or fewer, got {sum(sizes)}")
    return sizes


def _layers(value: Any) -> tuple[LayerSpec, ...]:
    if not isinstance(value, list) or not 0 < len(value) <= 1000:
        raise ValueError(f"expected a list of layers, got {value!r}")
    return tuple(
        LayerSpec(_size(size), _size(padding, least=0), _one_of(True, False)(pool))
        for size, padding, pool in value
    )


def _share(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value < 1:
        raise ValueError(f"expected a share of less than 1, got {value!r}")
    return float(value)


def _thin_fields(entry: Any) -> dict[str, Any]:
    optional = {
        "width": _size,
        "reads": partial(_sizes, least=0),
        "writes": partial(_sizes, least=0),
        "constant": _one_of(True, False),
    }
    return {name: optional[name](value) for name, value in entry.items() if value is not None}


_CLASSES = {"ResNet": ResNet, "ConvNet": ConvNet}
# Each field of a model but `thin`, and what reads it from JSON.
_KINDS: Mapping[str, Mapping[str, Callable[[Any], Any]]] = {
    "ResNet": {
        "num_classes": _size,
        "stage_sizes": _stages,
        "stage_widths": _sizes,
        "bottleneck": _one_of(True, False),
        "shortcut": _one_of("A", "B"),
        "stem": _one_of("small", "imagenet"),
        "dtype": _dtype,
    },
    "ConvNet": {
        "num_classes": _size,
        "layers": _layers,
        "channels": _size,
        "dropout": _share,
        "dtype": _dtype,
    },
}
