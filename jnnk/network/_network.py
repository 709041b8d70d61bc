"""What a network is made of, as read from its program."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from jnnk.network._convs import Conv, Group, LeftOut
from jnnk.network._groups import channel_groups
from jnnk.network._names import Path
from jnnk.network._program import Program


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

    def groups(self) -> tuple[Group, ...]:
        """The channels of the network, by what has to be removed together; see `Group`."""
        return self._groups

    @functools.cached_property
    def _groups(self) -> tuple[Group, ...]:
        return channel_groups(self.program, self.convs, self.paths)

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
