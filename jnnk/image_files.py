"""Image files decoded into one array."""

import pathlib
import struct
import warnings
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from jnnk.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
"""How the names of image files end, in capitals or not."""

# Not all that Pillow knows, whatever a file is called: for PostScript it would run a program.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM", "TIFF")
_READ_AS = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB", "YCbCr": "RGB", "CMYK": "RGB"}
# What Pillow raises for a file that is no image, is cut short, had bytes changed or is a bomb.
_DAMAGED = (
    OSError, ValueError, SyntaxError, IndexError, KeyError, TypeError, EOFError, OverflowError,
    MemoryError, struct.error, zlib.error, Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)  # fmt: skip

_Shape = tuple[int, int, int]


def read_images(
    paths: Sequence[pathlib.Path], *, shape: _Shape | None = None, mode: str | None = None
) -> np.ndarray:
    """Decode image files of one size and kind.

    Args:
        paths: at least one.
        shape: (H, W, C) that every image must have; by default that of the first.
        mode: ``"RGB"`` takes every image as RGB. By default black-and-white and grey images have
            one channel, those in colour, with a palette too, three.

    Returns:
        (N, H, W, C) uint8.

    Raises:
        InputError: naming the first file that cannot be read, or is of another size or kind.
    """
    # One thread: Pillow holds the GIL for most of so small an image.
    images, like = None, "" if shape else f" like {paths[0]}"
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for index, path in enumerate(paths):
            pixels = _decode(path, mode)
            shape = shape or pixels.shape
            if pixels.shape != shape:
                raise InputError(
                    f"{path}: expected {_text(shape)}{like}, got {_text(pixels.shape)}"
                )
            if images is None:
                images = _allocated(paths, shape)
            images[index] = pixels
    return images


def _decode(path: pathlib.Path, mode: str | None) -> np.ndarray:
    try:
        with Image.open(path, formats=_FORMATS) as image:
            wanted = mode or _READ_AS.get(image.mode)
            if wanted is not None:
                pixels = np.asarray(image.convert(wanted))
    except _DAMAGED as error:
        raise InputError(f"cannot read the image {path} ({error})") from error
    if wanted is None:
        raise InputError(
            f"{path}: expected 8 bits a channel, grey or RGB and not transparent, "
            f"got Pillow's mode {image.mode!r}"
        )
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _allocated(paths: Sequence[pathlib.Path], shape: _Shape) -> np.ndarray:
    try:
        return np.empty((len(paths), *shape), np.uint8)
    except MemoryError as error:
        raise InputError(
            f"{paths[0]}: {len(paths)} images of {_text(shape)} do not fit into memory "
            f"({error}); make them smaller"
        ) from None


def _text(shape: _Shape) -> str:
    height, width, channels = shape
    return f"{height}x{width} pixels (height x width), {'grey' if channels == 1 else 'RGB'}"
