"""What a network is made of, as read from its program."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from jnnk.network._kernels import KernelAxes
from jnnk.network._names import Path
from jnnk.network._program import Place, Program
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
        size: number of channels; each can go by itself, with all that hangs together with it.
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


@dataclass(frozen=True)
class Network:
    """A network as read from its program: `jnnk.network.read`.

    Attributes:
        convs: the convolutions that read the images, in the order in which they run.
        left_out: those that cannot be followed, with the reason.
        paths: JAX key paths of the leaves of the variables, without boxes.
        program: all operations that the outputs need; its inputs are the leaves of the variables,
            then those of the images.
    """

    convs: tuple[Conv, ...]
    left_out: tuple[LeftOut, ...]
    paths: tuple[Path, ...]
    program: Program

    def __getitem__(self, name: str) -> Conv:
        """The convolution of that name."""
        for conv in self.convs:
            if conv.name == name:
                return conv
        raise KeyError(f"no conv {name!r}; there are {', '.join(each.name for each in self.convs)}")

    def groups(self) -> "tuple[Group, ...]":
        """The channels of the network, by what has to be removed together; see `Group`."""
        from jnnk.network._groups import groups_of

        return groups_of(self)

    def __repr__(self) -> str:
        return f"<Network of {len(self.convs)} convs; print it for a table>"

    def table(self) -> list[tuple[str, ...]]:
        """What printing shows: a row of names, one for each convolution, and one of sums."""
        rows = [("conv", "kernel", "in", "out", "stride", "output", "weights", "MACs", "")]
        rows += [_row(conv) for conv in self.convs]
        weights = {conv.path: conv.params for conv in self.convs}
        macs = sum(conv.macs for conv in self.convs)
        return [*rows, ("all", "", "", "", "", "", f"{sum(weights.values()):,}", f"{macs:,}", "")]

    def __str__(self) -> str:
        lines = _aligned(self.table())
        lines += [f"not followed: {each.what}: {each.reason}" for each in self.left_out]
        return "\n".join(lines)


def _row(conv: Conv) -> tuple[str, ...]:
    notes: list[str] = []
    if conv.groups > 1:
        notes.append("depthwise" if _is_depthwise(conv) else f"{conv.groups} groups")
    if conv.is_transposed:
        notes.append(f"transposed, stride {_by_axis(conv.input_dilation)}")
    if any(step > 1 for step in conv.kernel_dilation):
        notes.append(f"dilation {_by_axis(conv.kernel_dilation)}")
    if conv.steps > 1:
        notes.append(f"{conv.steps} steps")
    if conv.activation.place == conv.output.place:
        notes.append("no nonlinearity")
    return (
        conv.name,
        _by_axis(conv.kernel_size),
        str(conv.kernel_shape[conv.axes.input] * conv.groups),
        str(conv.output_shape[-1]),
        _by_axis(conv.strides),
        " x ".join(map(str, conv.output_shape)),
        f"{conv.params:,}",
        f"{conv.macs:,}",
        ", ".join(notes),
    )


def _is_depthwise(conv: Conv) -> bool:
    return conv.kernel_shape[conv.axes.input] == 1


def _by_axis(sizes: Sequence[int]) -> str:
    """Sizes by axis, as one number where they are the same."""
    return str(sizes[0]) if len(set(sizes)) == 1 else " x ".join(map(str, sizes))


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """The rows of a table as lines; names and notes to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    last = len(widths) - 1
    return [
        "  ".join(
            cell.ljust(width) if place in (0, last) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def num_positions(conv: Conv) -> int:
    """Number of positions of one image's output."""
    return math.prod(conv.output_shape[:-1])
