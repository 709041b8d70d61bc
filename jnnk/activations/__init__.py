"""Activations of a network over a data set."""

from jnnk.activations._capture import (
    POOLINGS,
    ApplyFunction,
    LayerActivations,
    capture,
    layer_shapes,
)

__all__ = [
    "POOLINGS",
    "ApplyFunction",
    "LayerActivations",
    "capture",
    "layer_shapes",
]
