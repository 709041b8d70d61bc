"""What is told of a convolution, and of coupled channels."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from jnnk.network._kernels import KernelAxes
from jnnk.network._names import Path
from jnnk.network._program import Place
from jnnk.network._views import View


class Maps(NamedTuple):
    """Where the values of a convolution's channels are found, and how they lie there.

    Attributes:
        place: of the value in the program.
        view: its axes by those of the convolution's output.
        order: axes of the convolution's output: images, positions, channels.
        shape: that of the convolution's output in this order, such as (N, H, W, C).
    """

    place: Place
    view: View
    order: tuple[int, ...]
    shape: tuple[int, ...]

    def ordered(self, value: Array) -> Array:
        """The value at ``place`` as (N, positions ..., C), behind an axis for each scan."""
        scans = len(self.place.scans)
        steps = value.shape[:scans]
        axes = [parts[0].axis if parts and parts[0].size != 1 else None for parts in self.view]
        sizes = [size for size, axis in zip(value.shape[scans:], axes, strict=True)
                 if axis is not None]  # fmt: skip
        kept = [axis for axis in axes if axis is not None]
        order = [scans + kept.index(axis) for axis in self.order if axis in kept]
        value = jnp.transpose(value.reshape(*steps, *sizes), (*range(scans), *order))
        return value.reshape(*steps, *self.shape)


class ChannelLeaf(NamedTuple):
    """A leaf of the variables that holds a number for each channel, such as a bias.

    Attributes:
        path: JAX key path of the leaf.
        axis: of the leaf, over channels.
        role: "scale" if it multiplies, "shift" if it is added, "statistic" if it enters otherwise,
            as the variance of BatchNorm.
    """

    path: Path
    axis: int
    role: str


class Conv(NamedTuple):
    """One convolution of a network that reads the images.

    Attributes:
        name: of its layer: the path of its kernel without ``params`` and ``kernel``, ``weight`` or
            ``w``. Where a layer is called again, ``@2`` and so on follow.
        path: JAX key path of the kernel's leaf in the variables.
        kernel_shape: shape of the leaf.
        axes: what its axes are.
        groups: of channels that see each other.
        strides: of the positions.
        kernel_dilation: steps between the positions that a kernel sees.
        input_dilation: of a transposed convolution, its stride; else ones.
        output_shape: (positions ..., C) of one image, (H, W, C) in two dimensions, whatever the
            order in the network.
        channel_axis: which axis of the output in the network is that of channels.
        steps: how often it runs, in a scan; else 1.
        macs: multiply-accumulates of one image, in all steps. Positions outside of the image
            count, zeros between those of a transposed convolution do not.
        params: number of weights of the leaf.
        channel_leaves: bias and norm: what is applied to its output channel by channel up to the
            activation (or the sum before it), in that order.
        output: where its output is found.
        activation: where its activations are found: behind norm, bias and nonlinearity.
    """

    name: str
    path: Path
    kernel_shape: tuple[int, ...]
    axes: KernelAxes
    groups: int
    strides: tuple[int, ...]
    kernel_dilation: tuple[int, ...]
    input_dilation: tuple[int, ...]
    output_shape: tuple[int, ...]
    channel_axis: int
    steps: int
    macs: int
    params: int
    channel_leaves: tuple[ChannelLeaf, ...]
    output: Maps
    activation: Maps

    @property
    def kernel_size(self) -> tuple[int, ...]:
        """Number of positions that a kernel sees, by axis."""
        return tuple(self.kernel_shape[axis] for axis in self.axes.spatial)

    @property
    def is_transposed(self) -> bool:
        """Whether it widens its input by a stride."""
        return any(step > 1 for step in self.input_dilation)


class LeftOut(NamedTuple):
    """A convolution that was met and cannot be followed.

    Attributes:
        what: which one, by the shapes of its input and kernel.
        reason: why not.
    """

    what: str
    reason: str


class Slices(NamedTuple):
    """Slices of a leaf along one of its axes, those of each channel of a group.

    Attributes:
        path: JAX key path of the leaf in the variables.
        axis: of the leaf.
        indices: int (size of the group, slices of a channel): which ones.
    """

    path: Path
    axis: int
    indices: np.ndarray


class Group(NamedTuple):
    """Channels of the same kind, such as those of a residual stream.

    What is added to a residual stream, scaled by a normalisation or gated belongs to one channel; a
    depthwise convolution keeps channels apart, other grouped ones tie a group's inputs and filters
    together; GroupNorm ties the channels of its groups, LayerNorm all. Channels that reach an
    output, or an operation that has no rule, stay.

    Attributes:
        size: number of channels; each can go by itself, with all that is coupled to it.
        producers: names of the convolutions whose filters they are.
        readers: names of the convolutions that read them.
        slices: the slices of parameters and statistics that go with each channel.
        reason: why none of them can go; None if they can.
    """

    size: int
    producers: tuple[str, ...]
    readers: tuple[str, ...]
    slices: tuple[Slices, ...]
    reason: str | None
