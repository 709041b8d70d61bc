"""Penalties on a network's activations, by name, as a term of the training loss."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer

from jnnk._core.errors import InputError
from jnnk._core.patterns import matching
from jnnk.penalties._decorrelation import cka_penalty, decorrelation_penalty
from jnnk.penalties._overlap_penalty import overlap_penalty

#: (activations {layer: (B, H, W, C)}, labels (B,), PRNG key) -> scalar, added to the loss.
Regularizer = Callable[[dict[str, Array], Array, Array], Array]

PENALTIES = {
    "overlap": overlap_penalty,
    "decorrelation": decorrelation_penalty,
    "cka": cka_penalty,
}
"""``(activations (B, H, W, C), *, key, ...) -> ()``, 1 at most: how alike the channels are."""


def make_regularizer(
    name: str, *, strength: float, layers: Sequence[str] = ("*",), **options: Any
) -> Regularizer:
    """A term of the training loss: ``strength`` times the mean penalty of the chosen layers.

    Args:
        name: a key of ``PENALTIES``.
        strength: positive drives channels apart, negative together.
        layers: patterns of layer names such as ``"layer3*"``.
        **options: of the penalty, such as ``num_neighbors`` or ``num_channels``.

    Returns:
        ``(activations, labels, key) -> ()``; raises `InputError` when traced if no layer matches.

    Raises:
        InputError: for an unknown name.
        ValueError: for a strength that is not finite.
    """
    if not isinstance(strength, Tracer) and not math.isfinite(strength):
        raise ValueError(f"strength: expected a finite number, got {strength}")
    if name not in PENALTIES:
        raise InputError(f"name: expected one of {', '.join(PENALTIES)}, got {name!r}")

    def regularizer(activations: dict[str, Array], labels: Array, key: Array) -> Array:
        del labels
        matched = {layer for pattern in layers for layer in matching(activations, pattern)}
        chosen = [layer for layer in activations if layer in matched]
        if not chosen:
            raise InputError(
                f"layers: none matches {' '.join(layers)}; known: {', '.join(activations)}"
            )
        values = [
            PENALTIES[name](activations[layer], key=jax.random.fold_in(key, index), **options)
            for index, layer in enumerate(chosen)
        ]
        return strength * jnp.mean(jnp.stack(values))

    return regularizer
