"""Features of prepared TFDS sets, looked at before TFDS sees them: it imports what they name."""

import json
import pathlib
from typing import Any

from jnnk._core.errors import InputError
from jnnk.files.safe_files import read_file

_CORE = "tensorflow_datasets.core.features."
_CLASSES = frozenset(
    _CORE + name
    for name in (
        "features_dict.FeaturesDict", "image_feature.Image", "labeled_image.LabeledImage",
        "class_label_feature.ClassLabel", "text_feature.Text", "tensor_feature.Tensor",
        "scalar.Scalar", "sequence_feature.Sequence", "bounding_boxes.BBoxFeature",
    )
)  # fmt: skip
# The parts of a feature in JSON. Not `jsonFeature` and the `type` of older versions, in which texts
# hold further features, nor names in another spelling.
_PARTS = {
    "pythonClassName", "description", "valueRange", "featuresDict", "tensor", "classLabel", "image",
    "boundingBox", "text", "sequence",
}  # fmt: skip
_DTYPES = (
    "bool", "string", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64",
    "float16", "float32", "float64",
)  # fmt: skip
_DEPTH = 8
_SIZE = 2**24  # bytes of a file
_MOST_CLASSES = 10**6


def check_features(name: str, data_dir: pathlib.Path) -> None:
    """Refuses a set whose features are of other classes than those of images and their labels.

    Args:
        name: of the set, with a configuration where wanted.
        data_dir: folder of prepared sets.

    Raises:
        InputError: naming the class, or what else of ``features.json`` is not understood.
    """
    # TFDS picks the version, and the configuration where none is named.
    folder = data_dir / name.partition("/")[0]
    for depth in range(3):
        for path in sorted(folder.glob("*/" * depth + "features.json")):
            _check_file(path)


def _check_file(path: pathlib.Path) -> None:
    try:
        value = json.loads(read_file(path, limit=_SIZE))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON ({error})") from None
    try:
        _check_feature(value, 0)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


def _check_feature(feature: Any, depth: int) -> None:
    if depth > _DEPTH:
        raise ValueError(f"features nested more than {_DEPTH} deep")
    name = _object(feature).get("pythonClassName")
    if not isinstance(name, str) or name not in _CLASSES:
        known = ", ".join(sorted(each.rpartition(".")[2] for each in _CLASSES))
        raise ValueError(f"a feature of class {name!r}, which is not loaded; known: {known}")
    if unknown := sorted(feature.keys() - _PARTS):
        raise ValueError(f"{unknown[0]!r} in a feature is not understood")
    for inner in _object(_object(feature.get("featuresDict", {})).get("features", {})).values():
        _check_feature(inner, depth + 1)
    if "sequence" in feature:
        _check_feature(_object(feature["sequence"]).get("feature"), depth + 1)
    for part in ("image", "tensor", "boundingBox"):
        dtype = _object(feature.get(part, {})).get("dtype", "uint8")
        if dtype not in _DTYPES:  # TFDS would ask TensorFlow for it
            raise ValueError(f"{str(dtype)[:40]!r} is no dtype of images")
    count = str(_object(feature.get("classLabel", {})).get("numClasses", 0))
    if not (count.isdecimal() and len(count) < 10 and int(count) <= _MOST_CLASSES):
        raise ValueError(f"{count[:40]} classes, expected at most {_MOST_CLASSES}")


def _object(value: Any) -> dict:
    if not isinstance(value, dict):
        raise ValueError("expected an object where a feature is described")
    return value
