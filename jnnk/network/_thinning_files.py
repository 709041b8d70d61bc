"""Thinnings on disk: safetensors for indices and frozen weights, JSON in its metadata for the rest.

Nothing in a file is executed. All of it is checked: a foreign file is data.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from jnnk._core.errors import InputError
from jnnk.files.safe_files import replace_file
from jnnk.network._leaves import ThinLeaf
from jnnk.network._patterns import Layout, sizes_of
from jnnk.network._thinning import Thinning

_FORMAT = "jnnk thinning 1"
_LARGEST = 2**31
_MOST_LEAVES = 2**20
_MOST_AXES = 32
_Tensors: TypeAlias = dict[str, np.ndarray]


def save_thinning(thinning: Thinning, path: str | Path) -> None:
    """Writes a thinning as a safetensors file; an existing one is replaced.

    Raises:
        OSError: the file cannot be written.
    """
    tensors: _Tensors = {}
    described = []
    for number, leaf in enumerate(thinning.leaves):
        described.append(
            {"path": list(leaf.path), "shape": list(leaf.shape), "unread": leaf.unread}
            | {"kept": _write(tensors, f"{number}.kept", leaf.kept)}
            | {"rest": _write(tensors, f"{number}.rest", leaf.rest)}
            | {"masked": list(leaf.masked.shape)}
        )
        tensors[f"{number}.masked"] = np.packbits(leaf.masked.ravel())
        if leaf.values is not None:
            tensors[f"{number}.values"] = np.ascontiguousarray(_storable(leaf.values))
    metadata = {"format": _FORMAT, "leaves": json.dumps(described)}
    replace_file(Path(path), save(tensors, metadata=metadata))


def _write(tensors: _Tensors, name: str, layout: Layout | None) -> list[int] | None:
    """Keeps the indices of a layout, and returns the axes that have some."""
    if layout is None:
        return None
    axes = [axis for axis, kept in enumerate(layout) if kept is not None]
    tensors.update((f"{name}.{axis}", np.asarray(layout[axis], np.int32)) for axis in axes)
    return axes


def _storable(values: np.ndarray) -> np.ndarray:
    """The values in a dtype of NumPy's own.

    Shorter floats become float32, which holds them all; complex numbers get an axis of their two
    parts.
    """
    if values.dtype.kind == "c":
        return np.stack([np.real(values), np.imag(values)], axis=-1)
    return values if values.dtype.kind in "biuf" else values.astype(np.float32)


def load_thinning(path: str | Path) -> Thinning:
    """Reads a thinning written by `save_thinning`.

    Raises:
        InputError: the file is missing, unreadable, or no thinning.
    """
    if not Path(path).is_file():
        raise InputError(f"path: expected a file of save_thinning, got {path}, which is no file")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise InputError(f"path: {path} is not readable as safetensors: {error}") from error
    if metadata.get("format") != _FORMAT:
        raise InputError(f"path: expected a file of save_thinning, {path} describes no thinning")
    try:
        described = json.loads(metadata.get("leaves", ""))
        _check(isinstance(described, list) and len(described) <= _MOST_LEAVES, "a list of leaves")
        leaves = tuple(_leaf(number, each, tensors) for number, each in enumerate(described))
        _check(len({leaf.path for leaf in leaves}) == len(leaves), "leaves of different paths")
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise InputError(f"path: {path} describes no thinning: {error}") from error
    return Thinning(leaves)


def _leaf(number: int, described: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> ThinLeaf:
    _check(set(described) == {"path", "shape", "unread", "kept", "rest", "masked"}, "a leaf")
    keys, unread = described["path"], described["unread"]
    _check(isinstance(keys, list) and all(type(key) is str for key in keys), "keys of a path")
    _check(type(unread) is bool, "true or false")
    shape = _sizes(described["shape"])
    kept = _layout(f"{number}.kept", described["kept"], shape, tensors)
    _check(kept is not None, "indices that are kept")
    assert kept is not None
    rest = _layout(f"{number}.rest", described["rest"], shape, tensors)
    values = None
    if rest is not None:
        values = tensors[f"{number}.values"]
        if values.ndim == len(shape) + 1 and values.shape[-1] == 2:
            values = values[..., 0] + 1j * values[..., 1]
        _check(values.shape == sizes_of(rest, shape), "frozen weights of the shape of their places")
    masked = _pattern(tensors[f"{number}.masked"], _sizes(described["masked"]), shape)
    return ThinLeaf(tuple(keys), shape, kept, unread, rest, values, masked)


def _sizes(value: Any) -> tuple[int, ...]:
    _check(isinstance(value, list) and len(value) <= _MOST_AXES, "a shape")
    _check(all(type(size) is int and 0 <= size < _LARGEST for size in value), "sizes of a shape")
    return tuple(value)


def _layout(
    name: str, axes: Any, shape: Sequence[int], tensors: Mapping[str, np.ndarray]
) -> Layout | None:
    if axes is None:
        return None
    _check(
        isinstance(axes, list)
        and all(type(axis) is int and 0 <= axis < len(shape) for axis in axes),
        "axes of a leaf",
    )
    return tuple(
        _indices(tensors[f"{name}.{axis}"], size) if axis in axes else None
        for axis, size in enumerate(shape)
    )


def _indices(found: np.ndarray, size: int) -> np.ndarray:
    _check(found.dtype == np.int32 and found.ndim == 1 and len(found) > 0, "indices of an axis")
    increasing = bool((np.diff(found) > 0).all())
    _check(increasing and found[0] >= 0 and found[-1] < size, "increasing indices within the axis")
    return found.astype(np.intp)


def _pattern(found: np.ndarray, sizes: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    fits = len(sizes) == len(shape) and all(
        one in (1, size) for one, size in zip(sizes, shape, strict=True)
    )
    _check(fits, "a mask that can be broadcast to its leaf")
    count = int(np.prod(sizes, dtype=object))
    _check(found.dtype == np.uint8 and found.shape == (-(-count // 8),), "a mask of its size")
    return np.unpackbits(found, count=count).astype(bool).reshape(sizes)


def _check(holds: bool, expected: str) -> None:
    if not holds:
        raise ValueError(f"expected {expected}")
