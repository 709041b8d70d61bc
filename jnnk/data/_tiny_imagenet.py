"""Tiny ImageNet from the folders of its official archive."""

import pathlib

import numpy as np

from jnnk._core.errors import InputError
from jnnk.data._image_files import read_images

_SHAPE = (64, 64, 3)


def read(data_dir: pathlib.Path):
    """Read the training and the validation images (the test images have no labels).

    Args:
        data_dir: ``tiny-imagenet-200`` or the folder that holds it.

    Returns:
        ``(training images, labels)``, ``(validation images, labels)`` and the class names. Images
        (N, 64, 64, 3) uint8, grey ones as RGB; labels (N,) int32, in the order of ``wnids.txt``;
        names from ``words.txt``.

    Raises:
        InputError: a file of the layout is missing, damaged or not as expected.
    """
    root = data_dir / "tiny-imagenet-200"
    root = root if root.is_dir() else data_dir
    wnids = [line.strip() for line in _lines(root / "wnids.txt")]
    words = dict(line.split("\t", 1) for line in _lines(root / "words.txt") if "\t" in line)
    classes = {wnid: label for label, wnid in enumerate(wnids)}

    train = [
        (path, label)
        for wnid, label in classes.items()
        for path in sorted((root / "train" / wnid / "images").glob("*.JPEG"))
    ]
    validation = []
    annotations = root / "val" / "val_annotations.txt"
    for line in _lines(annotations):
        file, _, rest = line.partition("\t")  # then the class and the corners of a box
        wnid = rest.split("\t")[0]
        if wnid not in classes:
            raise InputError(f"{annotations}: class {wnid!r} of {file} is not in wnids.txt")
        validation.append((root / "val" / "images" / file, classes[wnid]))

    empty = set(range(len(wnids))) - {label for _, label in train}
    if empty:
        raise InputError(f"{root / 'train'}: no images of class {wnids[min(empty)]}")
    return _decode_all(train), _decode_all(validation), tuple(words.get(w, w) for w in wnids)


def _lines(path: pathlib.Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"data_dir: expected the layout of tiny-imagenet-200, cannot read {path} ({error})"
        ) from error


def _decode_all(examples: list[tuple[pathlib.Path, int]]) -> tuple[np.ndarray, np.ndarray]:
    if not examples:
        return np.empty((0, *_SHAPE), np.uint8), np.empty(0, np.int32)
    images = read_images([path for path, _ in examples], shape=_SHAPE, mode="RGB")
    return images, np.array([label for _, label in examples], np.int32)
