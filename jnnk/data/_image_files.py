"""Image files decoded into one array."""

import functools
import math
import pathlib
import struct
import warnings
import zlib
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from jnnk._core.errors import InputError
from jnnk._core.memory import gib, machine_memory
from jnnk.files.safe_files import open_file

SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".pbm",
    ".pnm", ".tif", ".tiff",
)  # fmt: skip
"""How the names of image files end, in capitals or not."""
UNREADABLE = (
    ".arw", ".avif", ".cr2", ".dcm", ".dng", ".exr", ".hdr", ".heic", ".heif", ".ico", ".j2k",
    ".jp2", ".jxl", ".nef", ".pfm", ".psd", ".svg", ".tga",
)  # fmt: skip
"""The same of image files of other kinds."""

# Not all that Pillow knows, whatever a file is called: for PostScript it would run a program.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM", "TIFF")
_READ_AS = {
    "1": "L", "L": "L", "LA": "L", "P": "RGB", "PA": "RGB", "RGB": "RGB", "RGBA": "RGB",
    "YCbCr": "RGB", "CMYK": "RGB",
}  # fmt: skip
# Modes with an alpha channel, for those whose transparency may stand beside the pixels.
_WITH_ALPHA = {"1": "LA", "L": "LA", "LA": "LA"}
# EXIF's orientation, the number of a mirroring or turn, and what undoes it.
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Tags of TIFF files: bits of each channel, and how they are meant.
_BITS_PER_SAMPLE, _SAMPLE_FORMAT, _UNSIGNED = 258, 339, 1
# What Pillow raises for a file that is no image, is cut short, had bytes changed or is a bomb.
_DAMAGED = (
    OSError, ValueError, SyntaxError, IndexError, KeyError, TypeError, EOFError, OverflowError,
    MemoryError, struct.error, zlib.error, Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)  # fmt: skip

_Shape = tuple[int, int, int]


def read_images(
    paths: Sequence[pathlib.Path],
    *,
    shape: _Shape | None = None,
    mode: str | None = None,
    image_size: int | None = None,
) -> np.ndarray:
    """Decode image files of one size and kind, upright as their EXIF orientation says.

    Args:
        paths: at least one.
        shape: (H, W, C) that every image must have; by default that of the first.
        mode: ``"RGB"`` takes every image as RGB. By default black-and-white and grey images have
            one channel and those in colour three. A palette of greys alone is what the others
            are, colour if there are no others.
        image_size: resizes every image, so that its shorter side has so many pixels, and cuts the
            square in its middle.

    Returns:
        (N, H, W, C) uint8.

    Raises:
        InputError: naming the first file that cannot be read, is of another size or kind, has
            transparent pixels, 16 bits a channel or several pictures.
    """
    # One thread: Pillow holds the GIL for most of so small an image.
    images, like = np.empty(0), "" if shape else f" like {paths[0]}"
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        if mode is None:
            mode = _mode_of(paths) if shape is None else {1: "L", 3: "RGB"}[shape[2]]
            decode = functools.partial(_decode, grey_palette=mode)
        else:
            decode = functools.partial(_decode, mode=mode)
        for index, path in enumerate(paths):
            pixels = decode(path, image_size=image_size)
            assert pixels is not None, "a palette of greys is read by grey_palette"
            shape = shape or pixels.shape
            if pixels.shape != shape:
                said = f"{path}: expected {_text(shape)}{like}, got {_text(pixels.shape)}"
                if pixels.shape[:2] == shape[:2]:
                    raise InputError(said)
                raise InputError(
                    f"{said}; image_size=N makes all of them N x N", remedy="image_size"
                )
            if index == 0:
                images = _allocated(len(paths), shape, paths[0])
            images[index] = pixels
    return images


def resize_images(images: np.ndarray, image_size: int) -> np.ndarray:
    """Resize images as `read_images` does.

    Args:
        images: (N, H, W, C) uint8 with 1 or 3 channels.
        image_size: S, the side they get.

    Returns:
        (N, S, S, C) uint8.

    Raises:
        InputError: if they take more memory than there is.
    """
    if images.shape[1:3] == (image_size, image_size):
        return images
    resized = _allocated(len(images), (image_size, image_size, images.shape[3]))
    for image, into in zip(images, resized, strict=True):
        pixels = image[..., 0] if image.shape[2] == 1 else image
        into[:] = np.asarray(_square(Image.fromarray(pixels), image_size)).reshape(into.shape)
    return resized


def _mode_of(paths: Sequence[pathlib.Path]) -> str:
    """``"L"`` or ``"RGB"``, by the first image that is not of a palette of greys."""
    for path in paths:
        pixels = _decode(path)
        if pixels is not None:
            return {1: "L", 3: "RGB"}[pixels.shape[2]]
    return "RGB"


def _decode(
    path: pathlib.Path,
    *,
    mode: str | None = None,
    grey_palette: str | None = None,
    image_size: int | None = None,
) -> np.ndarray | None:
    """The pixels (H, W, C) uint8; None for a palette of greys where nothing says how to read it."""
    try:
        with open_file(path) as file, Image.open(file, formats=_FORMATS) as image:
            problem = _problem(image)
            if problem is None:
                image.load()  # first: what is damaged shows here
                wanted = mode or _READ_AS[image.mode]
                if mode is None and image.mode == "P" and _is_grey(image):
                    wanted = grey_palette
                if wanted is None:
                    return None
                # From a palette by its colours, or the alpha channel would be mixed in.
                upright = _upright(image).convert(wanted)
                if image_size is not None:
                    upright = _square(upright, image_size)
                pixels = np.asarray(upright)
    except UnidentifiedImageError:
        raise InputError(f"cannot read the image {path} (of no kind that is read)") from None
    except _DAMAGED as error:
        raise InputError(f"cannot read the image {path} ({error})") from error
    if problem is not None:
        raise InputError(f"{path}: expected 8 bits a channel, grey or RGB, opaque; {problem}")
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _problem(image: Image.Image) -> str | None:
    """What would be read otherwise than meant, in words; None for nothing."""
    if image.mode not in _READ_AS:
        return f"got Pillow's mode {image.mode!r}"
    # Pillow reads these as 8 bits, silently. (A BMP's BGR;16 has five or six bits a channel.)
    if _is_deep(image):
        return "got 16 bits a channel"
    if image.format == "TIFF" and set(_tag(image, _SAMPLE_FORMAT)) - {_UNSIGNED}:
        return "got signed numbers"
    number = getattr(image, "n_frames", 1) if image.format != "JPEG" else 1  # an MPO's are previews
    if number > 1:
        return f"it holds {number} pictures, expected one"
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        extrema = image.convert(_WITH_ALPHA.get(image.mode, "RGBA")).getextrema()
        lowest, _ = cast(tuple[tuple[int, int], ...], extrema)[-1]  # a pair for each of the bands
        if lowest < 255:
            return "it has transparent pixels: put it on a background"
    return None


def _is_deep(image: Image.Image) -> bool:
    """Whether an opened file holds more than 8 bits a channel."""
    match image.format:
        case "PNG":
            return any(";16" in str(tile.args) for tile in _tiles(image))
        case "TIFF":
            return max(_tag(image, _BITS_PER_SAMPLE)) > 8
        case "PPM":
            return _largest_value(image) > 255
    return False


def _tag(image: Image.Image, number: int) -> tuple[int, ...]:
    """The values of a tag of a TIFF file, one per channel; 1 is the default of those asked for."""
    values = getattr(image, "tag_v2", {}).get(number, 1)
    return values if isinstance(values, tuple) else (values,)


def _largest_value(image: Image.Image) -> int:
    """The largest value that a PPM file may hold."""
    numbers = [each for tile in _tiles(image) for each in tile.args if isinstance(each, int)]
    return max(numbers, default=255)


def _tiles(image: Image.Image) -> list[Any]:
    """Where the pixels of an opened file lie, and how they are coded."""
    return getattr(image, "tile", [])


def _is_grey(image: Image.Image) -> bool:
    """Whether every colour that a palette image uses is a grey."""
    red, green, blue = np.moveaxis(np.asarray(image.convert("RGB")), -1, 0)
    return bool((red == green).all() and (green == blue).all())


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except _DAMAGED:  # of the description alone: viewers show the pixels as they are
        return image
    turn = _UPRIGHT.get(orientation) if orientation else None
    return image if turn is None else image.transpose(turn)


def _square(image: Image.Image, size: int) -> Image.Image:
    return ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)


def _allocated(count: int, shape: _Shape, first: pathlib.Path | None = None) -> np.ndarray:
    """Place for images, if there is so much memory: the system gives more, and kills later."""
    needed, available = count * math.prod(shape), machine_memory()
    if needed > available:
        where = "" if first is None else f"{first}: "
        raise InputError(
            f"{where}{count} images of {_text(shape)} take {gib(needed)}, this machine has "
            f"{gib(available)}: fewer images, or smaller ones by image_size",
            remedy="image_size",
        )
    return np.empty((count, *shape), np.uint8)


def _text(shape: _Shape) -> str:
    height, width, channels = shape
    return f"{height}x{width} pixels (height x width), {'grey' if channels == 1 else 'RGB'}"
