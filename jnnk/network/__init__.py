"""Networks as JAX sees them: their convolutions, activations and wiring, read from the jaxpr."""

from jnnk.network._kernels import KernelAxes
from jnnk.network._network import Conv, LeftOut, Network
from jnnk.network._reading import read

__all__ = ["Conv", "KernelAxes", "LeftOut", "Network", "read"]
