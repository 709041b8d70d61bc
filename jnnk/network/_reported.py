"""The layers of a network that returns its activations by name itself."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Array

from jnnk._core.errors import InputError


def reported_layers(returned: Any) -> dict[str, Array]:
    """The activations in what a network returned.

    Raises:
        InputError: where that is something else than logits and activations by name.
    """
    layers = returned[1] if isinstance(returned, tuple | list) and len(returned) == 2 else None
    if isinstance(layers, Mapping) and all(
        isinstance(name, str) and hasattr(values, "shape") for name, values in layers.items()
    ):
        return dict(layers)
    hint = ""
    if isinstance(layers, Mapping) and "intermediates" in layers:
        hint = (
            "; of Flax's capture_intermediates take the arrays out of state['intermediates'], such "
            "as {'conv': state['intermediates']['conv']['__call__'][0]}"
        )
    raise InputError(
        "apply_fn: expected (logits, {layer name: activations}) with site='reported', names "
        f"being text and activations arrays, got {_in_words(returned)}{hint}"
    )


def _in_words(value: Any) -> str:
    """The kind of a value, and of what is in it."""
    if isinstance(value, Mapping):
        inside = ", ".join(f"{name!r}: {_in_words(item)}" for name, item in list(value.items())[:3])
        return f"{{{inside}{', ...' if len(value) > 3 else ''}}}"
    if isinstance(value, tuple | list):
        inside = ", ".join(_in_words(item) for item in value[:3])
        ends = "()" if isinstance(value, tuple) else "[]"
        return f"{ends[0]}{inside}{', ...' if len(value) > 3 else ''}{ends[1]}"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"an array {value.dtype}{list(value.shape)}"
    return type(value).__name__
