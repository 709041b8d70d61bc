"""One's own images: arrays in an .npz file, or a folder of image files for each class."""

import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jnnk.archives import read_archive
from jnnk.errors import InputError
from jnnk.image_files import SUFFIXES, UNREADABLE, read_images, resize_images

# What others call the halves of a data set, in the order in which they are tested on.
_TRAIN = ("train", "training")
_TEST = ("test", "testing", "val", "valid", "validation", "dev", "eval", "holdout")
_NOT_MEANT = ("__macosx",)  # what macOS puts beside the files of an archive

_Split = tuple[np.ndarray, np.ndarray]


class Source(NamedTuple):
    """Images of one's own.

    Attributes:
        train: images (N, H, W, C) uint8 with 1 or 3 channels, and labels (N,) int32; every class
            has some.
        test: the same of the test images, or None.
        class_names: one name a class.
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
            remedy = "; --image-size N makes all N x N" if images.shape[3] == size[2] else ""
            raise InputError(
                f"{path}: {split}_images: expected (H, W, C) = {size} like train_images, "
                f"got {images.shape[1:]}{remedy}"
            )
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
            f"{path}: {names[1]}: expected {shape[0]} integers, one an image, got {labels.dtype} "
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
    train_folder, tests = _splits(path)
    class_names = tuple(entry.name for entry in _entries(train_folder) if entry.is_dir())
    if not class_names:
        raise InputError(
            f"{path}: expected folders of classes, in it or in its folder train; there are none"
        )
    files, labels = _files(train_folder, class_names)
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
    unknown = [e.name for e in _entries(folder) if e.is_dir() and e.name not in class_names]
    if unknown:
        raise InputError(f"{folder / unknown[0]}: {train_folder} has no class of that name")
    files, test_labels = _files(folder, class_names)
    if not files:
        raise InputError(f"{folder}: expected images in folders of classes, there are none")
    test = read_images(files, shape=images.shape[1:], image_size=image_size), test_labels
    return Source((images, labels), test, class_names, _said([each.name for each in tests]))


def _splits(path: pathlib.Path) -> tuple[pathlib.Path, list[pathlib.Path]]:
    """The folder of the training classes, and those of other splits, first what is tested on."""
    folders = [entry for entry in _entries(path) if entry.is_dir()]
    # Without folders in it, train is a class.
    train, tests = (
        [
            folder
            for name in names
            for folder in folders
            if folder.name.lower() == name and any(each.is_dir() for each in _entries(folder))
        ]
        for names in (_TRAIN, _TEST)
    )
    if len(train) > 1 or (tests and not train):
        raise InputError(
            f"{path}: expected one folder train beside test or val, or folders of classes alone; "
            f"got {', '.join(folder.name for folder in (*train, *tests))}"
        )
    if not train:
        return path, []
    classes = {entry.name for entry in _entries(train[0]) if entry.is_dir()}
    for folder in folders:
        inside = {entry.name for entry in _entries(folder) if entry.is_dir()}
        named = folder.name.lower() in _TEST  # an empty one is an error later
        if folder not in (*train, *tests) and (named or classes & inside):
            if not named:
                raise InputError(
                    f"{folder}: it holds classes of {train[0].name} but is none of the splits "
                    f"{', '.join(_TEST)}; call it one of them, or move it away"
                )
            tests.append(folder)
    return train[0], tests


def _files(folder: pathlib.Path, class_names: Sequence[str]) -> tuple[list, np.ndarray]:
    """The image files of the classes, by class and name, and their labels."""
    found = [
        (path, label)
        for label, name in enumerate(class_names)
        if (folder / name).is_dir()
        for path in _images_below(folder / name, ())
    ]
    return [path for path, _ in found], np.array([label for _, label in found], np.int32)


def _images_below(folder: pathlib.Path, above: tuple[pathlib.Path, ...]) -> Iterator[pathlib.Path]:
    """The image files of a folder and the folders in it, by name."""
    above = (*above, folder.resolve())
    for path in _entries(folder):
        if path.is_dir():
            if path.resolve() not in above:  # a link to a folder that it lies in
                yield from _images_below(path, above)
        elif path.suffix.lower() in SUFFIXES:
            yield path
        elif path.suffix.lower() in UNREADABLE:
            raise InputError(f"{path}: images of this kind are not read; make it a PNG or a JPEG")


def _entries(folder: pathlib.Path) -> list[pathlib.Path]:
    """What lies in a folder, is not hidden and no leftover of an archiver, by name."""
    try:
        return sorted(
            path
            for path in folder.iterdir()
            if not path.name.startswith(".") and path.name.lower() not in _NOT_MEANT
        )
    except OSError as error:
        raise InputError(f"{folder}: expected a folder of images ({error.strerror})") from None
