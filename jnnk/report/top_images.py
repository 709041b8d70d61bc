"""The images that every channel measured answers to most, kept small for the report."""

import base64
import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from jnnk._core.errors import InputError
from jnnk.report.figures.channels import top_rows
from jnnk.runs.folder import Run
from jnnk.runs.overlap_files import Epoch, epoch_folder, layer_file, read_npz, write_npz

NUMBER = 6
_IMAGES = "top-images.npz"
_SIDE = 48  # pixels at most of an image kept


class TopRows(NamedTuple):
    """Which images a layer's channels answer to most.

    Attributes:
        rows: (C, T) int, rows of the images measured, the largest mean activation first.
    """

    rows: np.ndarray

    AXES = {"rows": "i C T"}  # noqa: RUF012


class Images(NamedTuple):
    """The images that are on top of any channel of an epoch.

    Attributes:
        rows: (M,) int, ascending.
        images: (M, h, w, D) uint8, no side longer than 48 pixels.
    """

    rows: np.ndarray
    images: np.ndarray

    AXES = {"rows": "i M", "images": "u M H W D"}  # noqa: RUF012


def keep_top_rows(run: Run, epoch: Epoch, layer: str, activations: np.ndarray) -> None:
    """Writes the top rows of a layer.

    Args:
        run: the run folder.
        epoch: whose network this is.
        layer: its name.
        activations: (N, H, W, C).
    """
    rows = top_rows(activations.mean((1, 2), dtype=np.float64), number=NUMBER)
    write_npz(layer_file(run.path, epoch, layer, "top.npz"), TopRows(rows.astype(np.int32)))


def keep_images(run: Run, epoch: Epoch, images: np.ndarray) -> None:
    """Writes the images that are on top of any channel measured at an epoch.

    Args:
        run: the run folder.
        epoch: the one whose rows are there.
        images: (N, H, W, D) uint8, those measured.
    """
    folder = epoch_folder(run.path, epoch)
    found = [read_npz(path, TopRows).rows.ravel() for path in sorted(folder.glob("*.top.npz"))]
    if not found:
        return
    rows, path = np.unique(np.concatenate(found)), folder / _IMAGES
    if not (path.exists() and np.array_equal(read_npz(path, Images).rows, rows)):
        write_npz(path, Images(rows, np.stack([_small(images[row]) for row in rows])))


def read_top_images(
    run: Run, epoch: Epoch, layers: list[str]
) -> tuple[dict[str, np.ndarray], Images] | None:
    """Layer name to its (C, T) top rows, and the images; None where an epoch has none.

    Args:
        run: the run folder.
        epoch: the one asked for.
        layers: names of layers; those without top rows are left out.
    """
    path = epoch_folder(run.path, epoch) / _IMAGES
    if not path.exists():
        return None
    paths = {layer: layer_file(run.path, epoch, layer, "top.npz") for layer in layers}
    rows = {layer: read_npz(path, TopRows).rows for layer, path in paths.items() if path.exists()}
    kept = read_npz(path, Images)
    for layer, found in rows.items():
        if not np.isin(found, kept.rows).all():
            raise InputError(f"{path}: lacks images of {layer}; delete it to measure it again")
    return rows, kept


def data_uri(image: np.ndarray) -> str:
    """An image (H, W, D) uint8 as a data URI, WebP."""
    buffer = io.BytesIO()
    _as_picture(image).save(buffer, format="webp", quality=80, lossless=min(image.shape[:2]) <= 16)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _as_picture(image: np.ndarray) -> Image.Image:
    """An image (H, W, D) uint8, D 1 or 3, as one of Pillow's."""
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def _small(image: np.ndarray) -> np.ndarray:
    """An image (H, W, D) uint8 with no side longer than ``_SIDE``."""
    picture = _as_picture(image)
    picture.thumbnail((_SIDE, _SIDE))
    return np.asarray(picture).reshape(picture.height, picture.width, image.shape[-1])
