"""One's own images: arrays in an .npz file, or a folder of image files for each class."""

import pathlib
from collections.abc import Sequence

import numpy as np

from jnnk.archives import read_archive
from jnnk.errors import InputError
from jnnk.image_files import SUFFIXES, read_images

_Split = tuple[np.ndarray, np.ndarray]
_Source = tuple[_Split, _Split | None, tuple[str, ...]]


def read(path: pathlib.Path) -> _Source:
    """Read images of one's own; see `jnnk.data.load` for both layouts.

    Args:
        path: an .npz file or a folder.

    Returns:
        ``(train images, train labels)``, the same of the test images (None without any), and the
        class names. Images (N, H, W, C) uint8 with 1 or 3 channels, labels (N,) int32; every class
        has training images.

    Raises:
        InputError: the file or folder is missing, damaged or not as expected.
    """
    train, test, class_names = (read_npz if path.suffix == ".npz" else read_folder)(path)
    if len(class_names) < 2:
        raise InputError(f"{path}: expected two classes or more, got {len(class_names)}")
    return train, test, class_names


def read_npz(path: pathlib.Path) -> _Source:
    """Read an .npz file; see `read`."""
    arrays = read_archive(
        path,
        ("train_images", "train_labels"),
        optional=("test_images", "test_labels", "class_names"),
    )
    train = _split(path, arrays, "train")
    class_names = _class_names(path, train[1], arrays.get("class_names"))
    if not {"test_images", "test_labels"} & arrays.keys():
        return train, None, class_names
    test = _split(path, arrays, "test")
    size, test_size = train[0].shape[1:], test[0].shape[1:]
    if test_size != size:
        raise InputError(
            f"{path}: test_images: expected (H, W, C) = {size} like train_images, got {test_size}"
        )
    return train, test, class_names


def _split(path: pathlib.Path, arrays: dict[str, np.ndarray], split: str) -> _Split:
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
    return images.reshape(shape), labels.astype(np.int32)


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


def read_folder(path: pathlib.Path) -> _Source:
    """Read a folder of classes; see `read`."""
    train_folder, test_folder = path, None
    inner = _entries(path)
    if path / "train" in inner and any(entry.is_dir() for entry in _entries(path / "train")):
        train_folder = path / "train"  # without folders in it, train is a class
        test_folder = next((path / n for n in ("test", "val") if (path / n).is_dir()), None)
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
    images = read_images(files)
    if test_folder is None:
        return (images, labels), None, class_names
    unknown = [e.name for e in _entries(test_folder) if e.is_dir() and e.name not in class_names]
    if unknown:
        raise InputError(f"{test_folder / unknown[0]}: {train_folder} has no class of that name")
    files, test_labels = _files(test_folder, class_names)
    if not files:
        raise InputError(f"{test_folder}: expected images in folders of classes, there are none")
    return (images, labels), (read_images(files, shape=images.shape[1:]), test_labels), class_names


def _files(folder: pathlib.Path, class_names: Sequence[str]) -> tuple[list, np.ndarray]:
    """The image files of the classes, by class and name, and their labels."""
    found = [
        (path, label)
        for label, name in enumerate(class_names)
        if (folder / name).is_dir()
        for path in _entries(folder / name)
        if path.suffix.lower() in SUFFIXES
    ]
    return [path for path, _ in found], np.array([label for _, label in found], np.int32)


def _entries(folder: pathlib.Path) -> list[pathlib.Path]:
    """What lies in a folder and is not hidden, by name."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"{folder}: expected a folder of images ({error.strerror})") from None
