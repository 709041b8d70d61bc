"""The kinds of overlap: what a neighbour counts for, and how similar two neighbourhoods are."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class OverlapKind(NamedTuple):
    """How two neighbourhoods are compared.

    Attributes:
        strength: ``(weights) -> strengths``, both (..., K): what a neighbour counts for.
        combine: ``(strength, strength) -> contribution`` of a neighbour found in both.
        similarity: ``(shared, size, other_size) -> value``, from the summed contributions and
            the summed strengths of either side; the same with these exchanged.
    """

    strength: Callable[[Array], Array]
    combine: Callable[[Array, Array], Array]
    similarity: Callable[[Array, Array, Array], Array]

    @property
    def is_of_sets(self) -> bool:
        """Whether neighbours only count, whatever their weights."""
        return self.strength is _indicator and self.combine is jnp.minimum


def ratio(numerator: Array, denominator: Array, *, otherwise: float = 0.0) -> Array:
    """``numerator / denominator``, and ``otherwise`` (no NaN in the gradient) over zero."""
    positive = denominator > 0
    return jnp.where(positive, numerator / jnp.where(positive, denominator, 1), otherwise)


def _indicator(weights: Array) -> Array:
    """1 for neighbours, 0 for others."""
    return (weights > 0).astype(weights.dtype)


def _shares(weights: Array) -> Array:
    """Weights over their sum."""
    return ratio(weights, weights.sum(-1, keepdims=True))


def _unit(weights: Array) -> Array:
    """Weights over their Euclidean norm."""
    # Before squaring, since tiny weights must not underflow; it cancels, and so do derivatives.
    scale = jax.lax.stop_gradient(weights).max(-1, keepdims=True)
    scaled = ratio(weights, scale)
    squares = jnp.square(scaled).sum(-1, keepdims=True)
    return ratio(scaled, jnp.sqrt(jnp.where(squares > 0, squares, 1)))


def _over_union(shared: Array, size: Array, other: Array) -> Array:
    return ratio(shared, size + other - shared)


def _over_smaller(shared: Array, size: Array, other: Array) -> Array:
    return ratio(shared, jnp.minimum(size, other))


def _over_mean(shared: Array, size: Array, other: Array) -> Array:
    return ratio(2 * shared, size + other)


def _shared(shared: Array, size: Array, other: Array) -> Array:
    return shared


OVERLAP_KINDS: dict[str, OverlapKind] = {
    "jaccard": OverlapKind(_indicator, jnp.minimum, _over_union),
    "overlap": OverlapKind(_indicator, jnp.minimum, _over_smaller),
    "dice": OverlapKind(_indicator, jnp.minimum, _over_mean),
    "weighted": OverlapKind(_shares, jnp.minimum, _shared),
    "cosine": OverlapKind(_unit, jnp.multiply, _shared),
}


def overlap_kind(name: str) -> OverlapKind:
    """The comparison called ``name``, a key of ``OVERLAP_KINDS``.

    Raises:
        ValueError: if there is none of that name.
    """
    if name not in OVERLAP_KINDS:
        raise ValueError(f"kind: expected one of {', '.join(OVERLAP_KINDS)}, got {name!r}")
    return OVERLAP_KINDS[name]
