"""Image-classification sets of TensorFlow Datasets, read without TensorFlow."""

import contextlib
import difflib
import importlib.util
import logging
import os
import pathlib
import re

import numpy as np

from jnnk._core.errors import InputError
from jnnk._core.extras import extra
from jnnk.data._tfds_features import check_features

_CHUNK = 1000  # records decoded at a time: faster than one by one, and little memory


def read(name: str, data_dir: str | os.PathLike[str] | None):
    """Read a set that was prepared as array_record.

    Args:
        name: TFDS name, with a configuration where wanted (``emnist/balanced``).
        data_dir: folder of prepared sets.

    Returns:
        ``(train images, train labels)``, the same of the test split (None without one), and the
        class names. Images (N, H, W, C) uint8, labels (N,) int32.

    Raises:
        InputError: unknown name, no ``data_dir``, not prepared, damaged, or no image
            classification with images of one size.
    """
    with _quiet_tfds() as tfds:
        builder = _make_builder(tfds, name, data_dir)
        if data_dir is None:
            raise InputError(f"data set {name!r} needs data_dir: the folder of prepared TFDS sets")
        image_key, label_key = _image_and_label(tfds, name, builder.info)
        if not builder.is_prepared():
            raise InputError(
                f"data set {name!r} is not prepared: {builder.data_dir} is missing or incomplete; "
                + _how_to_prepare(name, data_dir),
                remedy="prepare",
            )
        splits = [
            split for split in ("train", "test", "validation") if split in builder.info.splits
        ]
        if splits[:1] != ["train"]:
            raise InputError(
                f"data set {name!r}: expected a split 'train', found {sorted(builder.info.splits)}"
            )
        train, *test = [
            _read_split(builder, name, data_dir, split, image_key, label_key)
            for split in splits[:2]
        ]
        class_names = tuple(builder.info.features[label_key].names)
        return train, test[0] if test else None, class_names


def prepare(name: str, data_dir: str | os.PathLike[str]) -> None:
    """Download and prepare a set as array_record; see `jnnk.data.prepare`."""
    if importlib.util.find_spec("tensorflow") is None:
        raise InputError("preparing a TFDS set needs TensorFlow: pip install 'jnnk[tfds-prepare]'")
    with _quiet_tfds() as tfds:
        builder = _make_builder(tfds, name, data_dir)
        _image_and_label(tfds, name, builder.info)
        try:
            builder.download_and_prepare(file_format="array_record")
        except (OSError, AssertionError) as error:  # AssertionError: to be downloaded by hand
            raise InputError(
                f"data set {name!r} cannot be prepared: {_first_line(error)}"
            ) from error


def _make_builder(tfds, name: str, data_dir):
    try:
        # Not the rest of TFDS's name syntax: name spaces would be looked up on the internet, and
        # dots and capitals name another folder than the one whose features are checked.
        if not re.fullmatch(r"[a-z0-9_]+(/\w[\w.-]*)?", name):
            raise tfds.core.registered.DatasetNotFoundError
        if data_dir is not None:
            check_features(name, pathlib.Path(data_dir))
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.registered.DatasetNotFoundError:
        known = tfds.list_builders(with_community_datasets=False)
        close = difflib.get_close_matches(name, ["digits", "tiny_imagenet", *known])
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise InputError(
            f"unknown data set {name!r}: expected digits, tiny_imagenet, a file ending in .npz, a "
            f"folder ending in / or a TFDS image-classification set such as cifar10{hint}"
        ) from None
    except InputError:
        raise
    except Exception as error:  # TFDS and protobuf raise many types for a damaged folder
        raise InputError(f"data set {name!r} cannot be opened: {_first_line(error)}") from error


def _image_and_label(tfds, name: str, info) -> tuple[str, str]:
    """Feature names of the image and the class label."""
    keys = info.supervised_keys
    is_pair = isinstance(keys, tuple) and len(keys) == 2 and set(keys) <= set(info.features)
    features = [info.features[key] for key in keys] if is_pair else []
    if [type(feature) for feature in features] != [tfds.features.Image, tfds.features.ClassLabel]:
        raise InputError(f"data set {name!r} is not an image-classification set")
    image = features[0]
    if None in image.shape or image.np_dtype != np.uint8:
        raise InputError(
            f"data set {name!r}: expected uint8 images of one size, "
            f"it has {np.dtype(image.np_dtype)} images of shape {image.shape}"
        )
    return keys


def _read_split(builder, name, data_dir, split, image_key, label_key):
    """Images (N, H, W, C) uint8 and labels (N,) int32 of a split, in the order stored."""
    try:
        source = builder.as_data_source(split=split)
        images = np.empty((len(source), *builder.info.features[image_key].shape), np.uint8)
        labels = np.empty(len(source), np.int32)
        for start in range(0, len(source), _CHUNK):
            block = range(start, min(start + _CHUNK, len(source)))
            for index, record in zip(block, source.__getitems__(list(block)), strict=True):
                images[index] = record[image_key]
                labels[index] = record[label_key]
    except (RuntimeError, OSError, ValueError, MemoryError) as error:
        raise InputError(
            f"data set {name!r}: split {split!r} in {builder.data_dir} cannot be read "
            f"({_first_line(error)}); delete that folder and {_how_to_prepare(name, data_dir)}",
            remedy="prepare",
        ) from error
    return images, labels


def _how_to_prepare(name: str, data_dir) -> str:
    return (
        f"call jnnk.data.prepare({name!r}, {str(data_dir)!r}) "
        "(needs the internet and TensorFlow: pip install 'jnnk[tfds-prepare]')"
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


@contextlib.contextmanager
def _quiet_tfds():
    """TFDS, imported only when a set of it is asked for, with its log down to errors.

    It warns of every folder it looks for in vain, which our own error says, and of OpenCV.
    """
    with extra("study"):
        import tensorflow_datasets as tfds
    from absl import logging as absl_logging

    logger = absl_logging.get_absl_logger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield tfds
    finally:
        logger.setLevel(level)
