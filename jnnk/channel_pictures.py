"""What single channels answer to, as pictures: their top images, and one image's neighbours."""

import itertools
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jnnk.figure_style import PALETTE, STYLE, make_axes
from jnnk.graph import NNKGraph


class ChannelPictures(NamedTuple):
    """Images that show what some channels of a layer say.

    Attributes:
        channels: (P,) int, which channels.
        top_images: (P, T, H, W, D) uint8, those with the largest mean activation, descending.
        top_means: (P, T) mean activation over positions.
        example: (H, W, D) uint8, one image that all of the channels answer to.
        neighbor_images: (P, M, H, W, D) uint8, the example's neighbours, the closest to it in
            weight first.
        neighbor_weights: (P, M), 0 where there is no further neighbour.
    """

    channels: np.ndarray
    top_images: np.ndarray
    top_means: np.ndarray
    example: np.ndarray
    neighbor_images: np.ndarray
    neighbor_weights: np.ndarray


def pick_pictures(
    images: np.ndarray,
    means: np.ndarray,
    graph: NNKGraph,
    channels: np.ndarray,
    *,
    number: int = 8,
) -> ChannelPictures:
    """The top images of every channel, and the neighbours of the image they all answer to most.

    That example is the one whose least activation, in shares of each channel's largest, is
    largest: an image to which one of the channels is silent has few neighbours there.

    Args:
        images: (N, H, W, D) uint8.
        means: (N, P) mean activation of every image in every channel.
        graph: of the channels, leading axis P.
        channels: (P,) their numbers.
        number: T, top images shown; M is one less, which leaves room for the example.
    """
    top = np.argsort(-means, axis=0, kind="stable")[:number].T
    largest = np.maximum(means.max(0), np.finfo(np.float64).tiny)  # dead channels have all 0
    example = int((means / largest).min(1).argmax())
    weights, indices = (np.asarray(field)[:, example] for field in (graph.weights, graph.indices))
    order = np.argsort(-weights, axis=1, kind="stable")[:, : number - 1]
    return ChannelPictures(
        channels=np.asarray(channels),
        top_images=images[top],
        top_means=np.take_along_axis(means.T, top, axis=1),
        example=images[example],
        neighbor_images=images[np.take_along_axis(indices, order, axis=1)],
        neighbor_weights=np.take_along_axis(weights, order, axis=1),
    )


def channel_rows(layer: str, pictures: ChannelPictures, overlap: np.ndarray) -> Figure:
    """Two rows a channel: its top images, and the example with its neighbours.

    Args:
        layer: its name.
        pictures: of some of its channels.
        overlap: (C, C) of all of its channels.
    """
    number, columns = pictures.top_images.shape[:2]
    columns = max(columns, 1 + pictures.neighbor_images.shape[1])
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure, axes = make_axes(
            2 * number, columns, (1.6 + columns, 0.3 + 2.5 * number), squeeze=False
        )
        for row, channel in enumerate(pictures.channels):
            top, near = axes[2 * row], axes[2 * row + 1]
            _label(top[0], f"channel {channel}:\nlargest mean\nactivation")
            for axis, image, mean in zip(
                top, pictures.top_images[row], pictures.top_means[row], strict=False
            ):
                _show(axis, image, f"{mean:.3g}")
            _label(near[0], f"channel {channel}:\nNNK neighbours\nof one image")
            _show(near[0], pictures.example, "the image", frame=PALETTE[1])
            for axis, image, weight in zip(
                near[1:], pictures.neighbor_images[row], pictures.neighbor_weights[row],
                strict=False,
            ):  # fmt: skip
                if weight > 0:
                    _show(axis, image, f"{weight:.2g}")
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[])
            if not axis.images:
                axis.spines[:].set_visible(False)
        figure.suptitle(layer + _overlap_note(pictures.channels, overlap), fontsize=10)
    return figure


def _overlap_note(channels: np.ndarray, overlap: np.ndarray) -> str:
    """Which two of the channels overlap most, and which least."""
    pairs = [
        (overlap[pair], "{} and {}".format(*pair))
        for pair in itertools.combinations(channels.tolist(), 2)
        if np.isfinite(overlap[pair])
    ]
    if not pairs:
        return ""
    (most, first), (least, last) = max(pairs), min(pairs)
    note = f": channels {first} overlap {most:.3f}"
    return note if len(pairs) == 1 else f"{note} (most), {last} {least:.3f} (least)"


def _label(axis: Axes, text: str) -> None:
    axis.set_ylabel(text, rotation=0, ha="right", va="center", fontsize=8)


def _show(axis: Axes, image: np.ndarray, text: str, *, frame: str | None = None) -> None:
    """One image with a line below it."""
    axis.imshow(
        image[..., 0] if image.shape[-1] == 1 else image,
        cmap="gray", vmin=0, vmax=255, interpolation="nearest",
    )  # fmt: skip
    axis.set_xlabel(text, fontsize=8)
    axis.spines[:].set_visible(frame is not None)
    if frame is not None:
        axis.spines[:].set(color=frame, linewidth=2)
