"""Networks as JAX sees them: their convolutions, activations and wiring, read from the jaxpr."""

from jnnk.network._as_function import as_function
from jnnk.network._as_model import AdaptedModel, as_model
from jnnk.network._capture import POOLINGS, LayerActivations, capture, layer_shapes
from jnnk.network._kernels import KernelAxes
from jnnk.network._network import Conv, LeftOut, Network
from jnnk.network._reading import read
from jnnk.network._with_activations import with_activations

__all__ = [
    "POOLINGS",
    "AdaptedModel",
    "Conv",
    "KernelAxes",
    "LayerActivations",
    "LeftOut",
    "Network",
    "as_function",
    "as_model",
    "capture",
    "layer_shapes",
    "read",
    "with_activations",
]
