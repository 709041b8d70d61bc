"""What single channels answer to, as pictures: their top images, and one image's neighbours."""

import itertools
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from jnnk.graphs import NNKGraph
from jnnk.report.figures.style import PALETTE, panel


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

    AXES = {  # noqa: RUF012
        "channels": "i P", "top_images": "u P T H W D", "top_means": "f P T", "example": "u H W D",
        "neighbor_images": "u P M H W D", "neighbor_weights": "f P M",
    }  # fmt: skip


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
    largest: the neighbours of an image for which a channel is silent are whatever else it is silent
    for.

    Args:
        images: (N, H, W, D) uint8.
        means: (N, P) mean activation of every image in every channel.
        graph: of the channels, leading axis P.
        channels: (P,) their numbers.
        number: T, top images shown; M is one less, which leaves room for the example.
    """
    top = top_rows(means, number=number)
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


def top_rows(means: np.ndarray, *, number: int) -> np.ndarray:
    """Rows of the images with the largest means in every channel, the largest first.

    Args:
        means: (N, P) mean activation of every image in every channel.
        number: of rows a channel.

    Returns:
        (P, number) int, fewer where there are fewer images.
    """
    return np.argsort(-means, axis=0, kind="stable")[:number].T


def channel_rows(layer: str, pictures: ChannelPictures, overlap: np.ndarray) -> Figure:
    """Two rows a channel: its top images, and the example with its neighbours.

    Args:
        layer: its name.
        pictures: of some of its channels.
        overlap: (C, C) of all of its channels.
    """
    rows = []
    for row, channel in enumerate(pictures.channels):
        means = [f"{mean:.3g}" for mean in pictures.top_means[row]]
        label = f"channel {channel}:\nlargest mean\nactivation"
        rows.append((label, pictures.top_images[row], means))
        weights = pictures.neighbor_weights[row]
        near = pictures.neighbor_images[row][weights > 0]
        label = f"channel {channel}:\nNNK neighbours\nof one image"
        texts = ["the image", *(f"{weight:.2g}" for weight in weights[weights > 0])]
        rows.append((label, np.concatenate([pictures.example[None], near]), texts))
    columns = max(len(images) for _, images, _ in rows)
    height, width = pictures.example.shape[:2]
    pitch = height / width + 0.25
    # One panel for all: a panel per image takes seconds to lay out.
    size = (1.4 + columns, 0.4 + len(rows) * pitch)
    with panel(size, grid=False) as (figure, axis):
        for number, row in enumerate(rows):
            _show_row(axis, number * pitch, *row, is_framed=number % 2 == 1)
        axis.set(xlim=(-1.35, columns), ylim=(len(rows) * pitch, -0.05))
        axis.set_axis_off()
        figure.suptitle(layer + _overlap_note(pictures.channels, overlap), fontsize=10)
    return figure


def _show_row(
    axis: Axes, top: float, label: str, images: np.ndarray, texts: list[str], *, is_framed: bool
) -> None:
    """Images side by side, each one wide, with a line below each; the first may have a frame."""
    height = images.shape[1] / images.shape[2]
    axis.text(-0.05, top + height / 2, label, ha="right", va="center", fontsize=8)
    for left, (image, text) in enumerate(zip(images, texts, strict=True)):
        axis.imshow(
            image[..., 0] if image.shape[-1] == 1 else image,
            extent=(left + 0.04, left + 0.96, top + 0.96 * height, top + 0.04 * height),
            cmap="gray", vmin=0, vmax=255, interpolation="nearest",
        )  # fmt: skip
        axis.text(left + 0.5, top + height, text, ha="center", va="top", fontsize=8)
    if is_framed:
        corner = (0.04, top + 0.04 * height)
        axis.add_patch(Rectangle(corner, 0.92, 0.92 * height, fill=False, ec=PALETTE[1], lw=2))


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
