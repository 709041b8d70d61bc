"""Networks as JAX sees them: convolutions, activations and connections, read from the jaxpr."""

from jnnk.network._as_function import as_function
from jnnk.network._as_model import AdaptedModel, as_model
from jnnk.network._capture import capture, layer_shapes
from jnnk.network._compaction import compact, thin
from jnnk.network._convs import Conv, Group, LeftOut, Slices
from jnnk.network._frameworks import Variables
from jnnk.network._kernels import KernelAxes
from jnnk.network._network import Network
from jnnk.network._passes import LayerActivations
from jnnk.network._poolings import POOLINGS
from jnnk.network._reading import read
from jnnk.network._thinning import Thinning
from jnnk.network._thinning_files import load_thinning, save_thinning
from jnnk.network._with_activations import with_activations

__all__ = [
    "POOLINGS",
    "AdaptedModel",
    "Conv",
    "Group",
    "KernelAxes",
    "LayerActivations",
    "LeftOut",
    "Network",
    "Slices",
    "Thinning",
    "Variables",
    "as_function",
    "as_model",
    "capture",
    "compact",
    "layer_shapes",
    "load_thinning",
    "read",
    "save_thinning",
    "thin",
    "with_activations",
]
