"""Image-classification data sets by name or path: arrays, class names and normalisation.

Reading happens once, on the host; `jnnk.data.normalize` and `jnnk.training` run on the device.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32, UInt8

from jnnk._core.errors import InputError
from jnnk._core.extras import extra
from jnnk._core.option_types import NUMBERS
from jnnk._core.whole_numbers import whole_number
from jnnk.data import _tfds_sets as tfds_sets
from jnnk.data._normalization import Normalization, channel_statistics

# The normalisation the public CIFAR weights of shared/ were trained with (ImageNet's figures).
_FIXED_NORMALISATION = dict.fromkeys(
    ("cifar10", "cifar100"), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
)
SPLIT_SEED = 0
"""Seed of the train/test split of a source that has none of its own (digits)."""


class Dataset(NamedTuple):
    """A data set in host memory.

    Attributes:
        name: the name it was loaded by; of one's own data the file's, or the folder's with a ``/``.
        train_images: (N, H, W, C) uint8, 0 to 255.
        train_labels: (N,) int32 in ``range(len(class_names))``.
        test_images: (M, H, W, C) uint8, 0 to 255.
        test_labels: (M,) int32.
        class_names: one name per class, in the order of the labels.
        normalization: float32 mean and standard deviation of each channel of the training images
            divided by 255; a deviation of 1 where a channel is constant.
        test_split: what the test images are, in words; "" where the source leaves no choice.
    """

    name: str
    train_images: UInt8[np.ndarray, "N H W C"]
    train_labels: Int32[np.ndarray, " N"]
    test_images: UInt8[np.ndarray, "M H W C"]
    test_labels: Int32[np.ndarray, " M"]
    class_names: tuple[str, ...]
    normalization: Normalization
    test_split: str = ""


def load(
    name: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    image_size: int | None = None,
) -> Dataset:
    """Read a data set into host memory.

    ===================  ==========================================================================
    name                 what is read
    ===================  ==========================================================================
    ``digits``           scikit-learn's 1,797 handwritten digits (8x8x1, the UCI optdigits test
                         set), scaled from 0..16 to 0..255. Needs no ``data_dir``.
    ``tiny_imagenet``    Tiny ImageNet in its official folders: ``data_dir`` is
                         ``tiny-imagenet-200`` or the folder that holds it. The 64x64 training
                         images, and as test images the validation images.
    ending in ``.npz``   A file of one's own with ``train_images`` (N, H, W), (N, H, W, 1) or
                         (N, H, W, 3) uint8 and ``train_labels`` (N,) or (N, 1) integers; where
                         wanted, ``test_images`` and ``test_labels`` too, or the same of ``val``,
                         and ``class_names`` (texts). MedMNIST's own files are of this kind.
    ending in ``/``, or  A folder of one's own with images (PNG, JPEG, ...; 8 bits, opaque) in
    an existing folder,  ``train/CLASS/`` or folders in it and, where wanted, in ``test/CLASS/``,
    without data_dir     ``val/``, ``valid/`` or ``validation/`` (``training_set/`` and the like
                         too), or all of them in ``CLASS/``.
                         All have one size, and are all grey (one channel) or all in colour.
                         They are turned as their EXIF orientation says. Hidden files and those
                         that describe images (text, tables, JSON, XML) are left out; other
                         files of a class, images beside the classes, and folders that may be
                         classes or splits are errors.
    any other            The TFDS image-classification set of that name, prepared as array_record
                         under ``data_dir`` (see `prepare`): ``cifar10``, ``cifar100``,
                         ``fashion_mnist``, ``emnist/balanced``, ... TensorFlow is not needed.
                         Tests on the split ``test``, else on ``validation``.
    ===================  ==========================================================================

    One's own classes are numbered from 0, in a folder in the order of their names; there are two or
    more, and each has training images. A class without test images is no error. Of several splits
    beside the training images ``test`` is tested on, else ``val``; the others are left out, as
    ``test_split`` says.

    A source without a test split (``digits``, some TFDS sets, one's own) gets a fixed one: of every
    class, the share 1/5 (rounded) that comes first in
    ``epoch_order(N, seed=SPLIT_SEED, epoch=0)``.

    The normalisation is computed from the training images, except for CIFAR-10 and CIFAR-100, where
    it is the one that public CIFAR ResNet weights are trained with.

    Args:
        name: see the table.
        data_dir: folder of the prepared sets; the folder that a path of one's own starts from.
        image_size: resizes every image, so that its shorter side has so many pixels, and cuts the
            square in its middle. By default images stay as they are.

    Returns:
        The data set.

    Raises:
        InputError: the name is unknown, the set is no image classification, is not prepared, is
            missing or damaged, or ``data_dir`` is needed and missing; or a package is missing that
            reads it.
    """
    if image_size is not None and not NUMBERS["image_size"].holds(image_size):
        raise InputError(f"image_size: expected {NUMBERS['image_size'].what}, got {image_size!r}")
    path = _own_path(name, data_dir)
    name = os.fspath(name) if path is None else _own_name(path)
    test_split = ""
    if name == "digits":
        train, test, class_names = _read_digits()
    elif name == "tiny_imagenet":
        with extra("study"):
            from jnnk.data import _tiny_imagenet as tiny_imagenet
        train, test, class_names = tiny_imagenet.read(_folder(name, data_dir))
    elif path is not None:
        with extra("study"):
            from jnnk.data import _own_data as own_data
        train, test, class_names, test_split = own_data.read(path, image_size=image_size)
    else:
        train, test, class_names = tfds_sets.read(name, data_dir and _folder(name, data_dir))
    _check_labels(name, "training", train[1], len(class_names))
    if test is None:
        train, test, test_split = _stratified_split(*train, class_names)
        if not len(test[1]):
            raise InputError(
                f"data set {name!r} has no test images, and a fifth of so few images (at most "
                f"{np.bincount(train[1]).max()} a class) is none: give 3 or more images of a "
                "class, or test images of their own"
            )
    _check_labels(name, "test", test[1], len(class_names))
    if image_size is not None:
        with extra("study"):
            from jnnk.data._image_files import resize_images
        train, test = ((resize_images(each[0], image_size), each[1]) for each in (train, test))
    if name in _FIXED_NORMALISATION:
        figures = _FIXED_NORMALISATION[name]
        normalization = Normalization(*(np.asarray(each, np.float32) for each in figures))
    else:
        normalization = channel_statistics(train[0])
    return Dataset(name, *train, *test, class_names, normalization, test_split)


def from_anywhere(
    name: str | os.PathLike[str], *, data_dir: str | None = None
) -> tuple[str, str | None]:
    """What `load` reads the same set by, whatever the working directory.

    Args:
        name: as for `load`.
        data_dir: likewise.

    Returns:
        ``name`` and ``data_dir``: of one's own data, the file's or folder's own name and the
        absolute path of the folder that it lies in; of other sets, as they are.
    """
    path = _own_path(name, data_dir)
    if path is None:
        return os.fspath(name), data_dir
    return _own_name(path), str(path.parent)


def only_classes(dataset: Dataset, names: Sequence[str]) -> Dataset:
    """The images of some classes.

    Args:
        dataset: the whole set.
        names: classes kept; they are numbered in this order.

    Returns:
        A set of those classes, its images in the order of the whole.

    Raises:
        InputError: for a class that the set has not.
    """
    unknown = sorted(set(names) - set(dataset.class_names))
    if unknown:
        raise InputError(
            f"{dataset.name} has no class {', '.join(unknown)}; "
            f"known: {', '.join(dataset.class_names)}"
        )
    number = np.full(len(dataset.class_names), -1, np.int32)
    number[[dataset.class_names.index(name) for name in names]] = np.arange(len(names))

    def chosen(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        kept = number[labels] >= 0
        return images[kept], number[labels[kept]]

    train = chosen(dataset.train_images, dataset.train_labels)
    test = chosen(dataset.test_images, dataset.test_labels)
    return Dataset(
        dataset.name, *train, *test, tuple(names), dataset.normalization, dataset.test_split
    )


def first_images(dataset: Dataset, *, train: int | None = None, test: int | None = None) -> Dataset:
    """The first images of either half, with their labels.

    Args:
        dataset: the whole set.
        train: number of training images kept, all by default.
        test: number of test images kept, all by default.
    """
    return dataset._replace(
        train_images=dataset.train_images[:train],
        train_labels=dataset.train_labels[:train],
        test_images=dataset.test_images[:test],
        test_labels=dataset.test_labels[:test],
    )


def fingerprint(dataset: Dataset) -> dict[str, str]:
    """What tells one data set from another: a digest of every part, BLAKE2b of 16 bytes.

    A digest is of the array's dtype, shape and values in C order, or of the list of names as JSON.
    The name of the set and its normalisation do not count.

    Args:
        dataset: the data set.

    Returns:
        Name of the field -> 32 hexadecimal digits; of the images and labels of both halves, and of
        ``class_names``.
    """
    names = json.dumps(dataset.class_names).encode()
    digests = {"class_names": hashlib.blake2b(names, digest_size=16).hexdigest()}
    for field in ("train_images", "train_labels", "test_images", "test_labels"):
        array = np.ascontiguousarray(getattr(dataset, field))
        digest = hashlib.blake2b(f"{array.dtype.str} {array.shape} ".encode(), digest_size=16)
        digest.update(array.reshape(-1).view(np.uint8).data)
        digests[field] = digest.hexdigest()
    return digests


def prepare(name: str, data_dir: str | os.PathLike[str]) -> None:
    """Download a TFDS set and prepare it for `load`.

    Args:
        name: a TFDS name, such as ``cifar10``.
        data_dir: folder to put it in; made if missing.

    Raises:
        InputError: TensorFlow (the extra ``tfds-prepare``) is not installed, the name is unknown
            or no image classification, or the download failed.
    """
    tfds_sets.prepare(name, data_dir)


def epoch_order(num_examples: int, *, seed: int, epoch: int) -> Int32[np.ndarray, " num_examples"]:
    """Order in which an epoch visits the training examples.

    It sorts raw output of NumPy's PCG64, which NumPy keeps stable between versions and machines
    (that of ``Generator.permutation`` it does not).

    Args:
        num_examples: how many there are.
        seed: the run's seed, 0 or more.
        epoch: the epoch's number, 0 or more; orders of different epochs are independent.

    Returns:
        (num_examples,) int32, a permutation of ``range(num_examples)``.

    Raises:
        ValueError: if one of them is no whole number of at least 0.
    """
    for argument, value in (("num_examples", num_examples), ("seed", seed), ("epoch", epoch)):
        whole_number(argument, value, least=0)
    stream = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(epoch,)))
    return np.argsort(stream.random_raw(num_examples), kind="stable").astype(np.int32)


def _own_path(
    name: str | os.PathLike[str], data_dir: str | os.PathLike[str] | None
) -> pathlib.Path | None:
    """The absolute path of one's own data, None where the name is none of a file or folder."""
    name = os.fspath(name)
    if name in ("digits", "tiny_imagenet"):
        return None
    if name.endswith((".npz", "/")) or (data_dir is None and os.path.isdir(name)):
        return pathlib.Path(os.path.abspath(os.path.join(data_dir or "", name)))
    return None


def _own_name(path: pathlib.Path) -> str:
    """The name of one's own data: the file's, or the folder's with a ``/``."""
    return path.name if path.suffix == ".npz" else f"{path.name}/"


def _folder(name: str, data_dir: str | os.PathLike[str] | None) -> pathlib.Path:
    """``data_dir`` as a path to a folder that exists."""
    if data_dir is None:
        raise InputError(f"data set {name!r} needs data_dir: the folder that holds it")
    path = pathlib.Path(data_dir)
    if not path.is_dir():
        raise InputError(
            f"data_dir: expected a folder that holds {name!r}, there is none at {path}"
        )
    return path


def _read_digits():
    """Images and labels (no test split), and class names, of scikit-learn's digits."""
    with extra("study"):
        from sklearn.datasets import load_digits  # slow to import

    digits: Any = load_digits()  # a Bunch; sklearn's annotation has the tuple too
    images = np.round(digits.images[..., None] * (255 / 16)).astype(np.uint8)
    class_names = tuple(str(name) for name in digits.target_names)
    return (images, digits.target.astype(np.int32)), None, class_names


def _stratified_split(images: np.ndarray, labels: np.ndarray, class_names: Sequence[str]):
    """Both halves, and what was held out in words."""
    order = epoch_order(len(labels), seed=SPLIT_SEED, epoch=0)
    is_test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        is_test[members[: round(len(members) / 5)]] = True
    said = "a fifth of every class, held out"
    untested = [
        class_names[int(label)] for label in np.unique(labels) if label not in labels[is_test]
    ]
    if untested:
        said += f"; none of {', '.join(untested)}, which have too few images"
    return (images[~is_test], labels[~is_test]), (images[is_test], labels[is_test]), said


def _check_labels(name: str, split: str, labels: np.ndarray, num_classes: int) -> None:
    """Refuses a half without images, or labels that are no numbers of classes."""
    if not labels.size:
        raise InputError(f"data set {name!r} has no {split} images")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise InputError(
            f"data set {name!r}: {split} labels run from {labels.min()} to {labels.max()}, "
            f"expected 0 to {num_classes - 1}"
        )
