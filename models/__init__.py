"""Flax models that return ``(logits, activations)``, and weights for them.

``create(name, num_classes=...)`` makes a model. ``model.apply(variables, images, train=False)``
gives float32 logits ``(N, num_classes)`` and an ordered dict from layer name to activations
``(N, H, W, C)``; with ``train=True`` apply with ``mutable=["batch_stats"]`` and, where there is
dropout, ``rngs={"dropout": key}``.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from .convnet import FIVE, SIX, ConvNet
from .layers import Activations
from .resnet import ResNet
from .weights import WeightsError, from_tensorflow, load_safetensors, save_masks, save_safetensors

__all__ = [
    "Activations",
    "ConvNet",
    "ResNet",
    "WeightsError",
    "create",
    "from_tensorflow",
    "load_safetensors",
    "names",
    "save_masks",
    "save_safetensors",
]


def __dir__() -> list[str]:
    """What users call."""
    return __all__


_LARGEST = 2**20
"""Numbers of channels and classes are below."""


def _cifar(depth: int) -> Callable[..., ResNet]:
    return partial(ResNet, stage_sizes=((depth - 2) // 6,) * 3, stage_widths=(16, 32, 64))


def _imagenet(*stage_sizes: int, bottleneck: bool) -> Callable[..., ResNet]:
    return partial(
        ResNet, stage_sizes=stage_sizes, stage_widths=(64, 128, 256, 512), bottleneck=bottleneck
    )


_CIFAR_RESNETS = {f"resnet{depth}": _cifar(depth) for depth in (8, 20, 32, 44, 56, 110)}
_IMAGENET_RESNETS = {
    "resnet18": _imagenet(2, 2, 2, 2, bottleneck=False),
    "resnet50": _imagenet(3, 4, 6, 3, bottleneck=True),
}
_CONVNETS = {
    "convnet6": partial(ConvNet, layers=SIX, channels=32),
    "convnet5": partial(ConvNet, layers=FIVE, channels=5),
}
_OPTIONS = {
    **dict.fromkeys(_CIFAR_RESNETS, ("dtype",)),
    **dict.fromkeys(_IMAGENET_RESNETS, ("dtype", "stem")),
    **dict.fromkeys(_CONVNETS, ("channels", "dropout", "dtype")),
}


def names() -> tuple[str, ...]:
    """Names that `create` knows."""
    return tuple(_OPTIONS)


def create(name: str, *, num_classes: int, shortcut: str = "A", **options: Any) -> nn.Module:
    """Makes a model.

    Args:
        name: ``resnet{8,20,32,44,56,110}``, the CIFAR ResNets; ``resnet18`` or ``resnet50``, the
            ImageNet ones as in torchvision (``resnet50`` is version 1.5); ``convnet6``, six convs
            of 32 channels (DeepNNK); ``convnet5``, four convs of five channels, for images of at
            least 24 pixels.
        num_classes: number of logits.
        shortcut: for CIFAR ResNets, "A" (no parameters) or "B" (1x1 projection with
            BatchNorm). The ImageNet ResNets always project, and ConvNets have none.
        **options: ``dtype`` of the computation, such as ``jnp.bfloat16`` (float32 by default); for
            ``resnet18`` and ``resnet50``, ``stem``: "imagenet" (default) or "small", for images of
            64 pixels or fewer; for ConvNets, ``channels`` of every conv and ``dropout`` behind
            every conv (0 by default).

    Returns:
        An uninitialised model: `ResNet` or `ConvNet`.

    Raises:
        ValueError: an unknown name, option or value; the message lists the known ones.
    """
    if name not in _OPTIONS:
        raise ValueError(f"name: expected one of {', '.join(names())}, got {name!r}")
    for option in options:
        if option not in _OPTIONS[name]:
            known = ", ".join(_OPTIONS[name])
            raise ValueError(f"{name} has no option {option!r}; known: {known}")
    _check_options({"num_classes": num_classes, **options})
    if shortcut not in ("A", "B"):
        raise ValueError(f"shortcut: expected 'A' or 'B', got {shortcut!r}")
    if name in _CIFAR_RESNETS:
        return _CIFAR_RESNETS[name](num_classes=num_classes, shortcut=shortcut, **options)
    if name in _IMAGENET_RESNETS:
        stem = options.pop("stem", "imagenet")
        return _IMAGENET_RESNETS[name](num_classes=num_classes, stem=stem, **options)
    return _CONVNETS[name](**{"num_classes": num_classes, **options})


def _check_options(options: dict[str, Any]) -> None:
    """Raises where an option's value has no meaning."""
    for name, (expected, is_meant) in _VALUES.items():
        if name in options and not is_meant(options[name]):
            raise ValueError(f"{name}: expected {expected}, got {options[name]!r}")


def _is_size(value: Any) -> bool:
    is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return bool(is_whole and 1 <= value < _LARGEST)


def _is_rate(value: Any) -> bool:
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return bool(is_number and 0 <= value < 1)


def _is_dtype(value: Any) -> bool:
    try:
        return jnp.issubdtype(jnp.dtype(value), jnp.floating)
    except TypeError:
        return False


_VALUES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "stem": ("'imagenet' or 'small'", lambda value: value in ("imagenet", "small")),
    "num_classes": (f"a whole number of 1 or more and below {_LARGEST}", _is_size),
    "channels": (f"a whole number of 1 or more and below {_LARGEST}", _is_size),
    "dropout": ("a number of 0 or more and below 1", _is_rate),
    "dtype": ("a floating dtype such as 'bfloat16'", _is_dtype),
}
