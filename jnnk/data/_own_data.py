"""One's own images: arrays in an .npz file, or a folder of image files for each class."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jnnk._core.errors import InputError
from jnnk.data._image_files import SUFFIXES, read_images, resize_images
from jnnk.data._image_folders import class_folders, find_images, find_splits, refuse_splits
from jnnk.files.archives import read_archive

_Split = tuple[np.ndarray, np.ndarray]


class Source(NamedTuple):
    """Images of one's own.

    Attributes:
        train: images (N, H, W, C) uint8 with 1 or 3 channels, and labels (N,) int32; every class
            has some.
        test: the same of the test images, or None.
        class_names: one name per class.
        test_split: what the test images are called there, and what was left out beside them.
    """

    train: _Split
    test: _Split | None
    class_names: tuple[str, ...]
    test_split: str = ""


def read(path: pathlib.Path, *, image_size: int | None = None) -> Source:
    """Read images of one's own; see `jnnk.data.load` for both layouts.

    Args:
        path: an .npz file or a folder.
        image_size: side of the squares that the images are made to, or None.

    Raises:
        InputError: the file or folder is missing, damaged or not as expected.
    """
    read = read_npz if path.suffix == ".npz" else read_folder
    source = read(path, image_size=image_size)
    if len(source.class_names) < 2:
        raise InputError(f"{path}: expected two classes or more, got {len(source.class_names)}")
    return source


def read_npz(path: pathlib.Path, *, image_size: int | None = None) -> Source:
    """Read an .npz file; see `read`."""
    arrays = read_archive(
        path,
        ("train_images", "train_labels"),
        optional=("test_images", "test_labels", "val_images", "val_labels", "class_names"),
    )
    train = _split(path, arrays, "train", image_size)
    class_names = _class_names(path, train[1], arrays.get("class_names"))
    splits = {
        split: _split(path, arrays, split, image_size)
        for split in ("test", "val")
        if {f"{split}_images", f"{split}_labels"} & arrays.keys()
    }
    size = train[0].shape[1:]
    for split, (images, _) in splits.items():
        if images.shape[1:] != size:
            said = (
                f"{path}: {split}_images: expected (H, W, C) = {size} like train_images, "
                f"got {images.shape[1:]}"
            )
            if images.shape[3] != size[2]:
                raise InputError(said)
            raise InputError(f"{said}; image_size=N makes all N x N", remedy="image_size")
    if not splits:
        return Source(train, None, class_names)
    return Source(train, next(iter(splits.values())), class_names, _said(list(splits)))


def _said(splits: Sequence[str]) -> str:
    """The split that is tested on, the first, and those left out."""
    tested, *others = splits
    return f"{tested} ({' and '.join(others)} left out)" if others else tested


def _split(
    path: pathlib.Path, arrays: dict[str, np.ndarray], split: str, image_size: int | None
) -> _Split:
    """Images (N, H, W, C) uint8 and labels (N,) int32 of a split, 0 or more."""
    names = f"{split}_images", f"{split}_labels"
    for name in names:
        if name not in arrays:
            raise InputError(f"{path}: expected {' and '.join(names)}, {name} is missing")
    images, labels = (arrays[name] for name in names)
    if images.dtype != np.uint8:
        raise InputError(f"{path}: {names[0]}: expected uint8 from 0 to 255, got {images.dtype}")
    shape = (*images.shape, 1) if images.ndim == 3 else images.shape
    if len(shape) != 4 or shape[3] not in (1, 3) or 0 in shape:
        raise InputError(
            f"{path}: {names[0]}: expected shape (N, H, W), (N, H, W, 1) or (N, H, W, 3), none of "
            f"them 0, got {images.shape}"
        )
    if labels.shape == (shape[0], 1):  # as MedMNIST writes them
        labels = labels[:, 0]
    if labels.dtype.kind not in "iu" or labels.shape != shape[:1]:
        raise InputError(
            f"{path}: {names[1]}: expected {shape[0]} integers, one per image, got {labels.dtype} "
            f"of shape {labels.shape}"
        )
    if labels.min() < 0 or labels.max() > np.iinfo(np.int32).max:
        raise InputError(
            f"{path}: {names[1]}: expected classes numbered from 0, "
            f"they run from {labels.min()} to {labels.max()}"
        )
    images = images.reshape(shape)
    if image_size is not None:
        images = resize_images(images, image_size)
    return images, labels.astype(np.int32)


def _class_names(
    path: pathlib.Path, labels: np.ndarray, given: np.ndarray | None
) -> tuple[str, ...]:
    """The names given, or the numbers; all classes have training images."""
    found = np.unique(labels)
    if given is None:
        names = tuple(str(number) for number in range(len(found)))
    elif given.ndim == 1 and given.dtype.kind == "U" and len(np.unique(given)) == len(given):
        names = tuple(given.tolist())
    else:
        raise InputError(
            f"{path}: class_names: expected texts, no two the same, "
            f"got {given.dtype} of shape {given.shape}"
        )
    if not np.array_equal(found, np.arange(len(names))):
        raise InputError(
            f"{path}: train_labels: expected all of 0 to {len(names) - 1} for {len(names)} "
            f"classes, got {len(found)} different ones from {found[0]} to {found[-1]}"
        )
    return names


def read_folder(path: pathlib.Path, *, image_size: int | None = None) -> Source:
    """Read a folder of classes; see `read`."""
    train_folder, tests = find_splits(path)
    folders = class_folders(train_folder)
    if not folders:
        raise InputError(
            f"{path}: expected folders of classes, in it or in its folder train; there are none"
        )
    if len(folders) > 1:
        refuse_splits(path, folders)
    class_names = tuple(each.name for each in folders)
    files, labels = find_images(train_folder, class_names)
    empty = set(range(len(class_names))) - set(labels.tolist())
    if empty:
        raise InputError(
            f"{train_folder / class_names[min(empty)]}: expected the images of a class "
            f"({', '.join(SUFFIXES)}), there are none"
        )
    images = read_images(files, image_size=image_size)
    if not tests:
        return Source((images, labels), None, class_names)
    folder = tests[0]
    unknown = [each for each in class_folders(folder) if each.name not in class_names]
    if unknown:
        raise InputError(f"{unknown[0]}: {train_folder} has no class of that name")
    files, test_labels = find_images(folder, class_names)
    if not files:
        raise InputError(f"{folder}: expected images in folders of classes, there are none")
    test = read_images(files, shape=images.shape[1:], image_size=image_size), test_labels
    return Source((images, labels), test, class_names, _said([each.name for each in tests]))
