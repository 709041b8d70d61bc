"""Weights of any network on disk, as safetensors; nothing is unpickled.

A tensor's name is the path of its leaf without the collection at its start: ``conv1/kernel``. Files
whose names are PyTorch's are read too, where it is clear which leaf is meant.
"""

import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

import jax
import numpy as np
import safetensors
import safetensors.numpy

from jnnk._core.errors import InputError
from jnnk.files.safe_files import open_file, resolved
from jnnk.network import Network
from jnnk.network._names import PyTree, named_leaves
from jnnk.runs.json_files import write_bytes
from jnnk.runs.torch_names import FoundTensors, torch_tensors

_KNOWN = ("BF16", "F16", "F32", "F64", "I", "U", "BOOL")  # what dtypes begin with
_SHOWN = 4  # names that an error lists


class _Reading(NamedTuple):
    """One way to read a file.

    Attributes:
        arrays: by the paths of the leaves.
        problems: what is missing, left over or of another shape, in words.
    """

    arrays: dict[str, np.ndarray]
    problems: list[str]


def write_weights(path: str | os.PathLike[str], variables: PyTree) -> None:
    """Writes the variables of a network, the whole file or nothing.

    Args:
        path: file to write; one tensor for each leaf, named by its path.
        variables: ``{"params": ..., "batch_stats": ...}``.
    """
    leaves = named_leaves(variables)
    names = _names(list(leaves))
    tensors = {names[leaf]: np.asarray(array, order="C") for leaf, array in leaves.items()}
    path = pathlib.Path(path)
    write_bytes(resolved(path.parent) / path.name, safetensors.numpy.save(tensors))


def read_weights(path: str | os.PathLike[str], like: PyTree, *, network: Network) -> dict[str, Any]:
    """Reads the variables of a network.

    Names are the paths of the leaves, with "/" or "." between their parts and with or without the
    collection; arrays are as the network has them. Or all names are PyTorch's: then ``weight`` of
    four axes is brought from OIHW to the kernel's layout, that of a dense layer is transposed (and
    put into the network's order where it reads flattened maps), and ``weight``, ``bias``,
    ``running_mean`` and ``running_var`` of norms are their scale, offset and statistics.
    ``num_batches_tracked`` is ignored, and so is what all names begin with, such as ``module.``.

    Args:
        path: the file.
        like: the network's variables, or their shapes and dtypes.
        network: as `jnnk.network.read` reads it.

    Returns:
        Variables of the form of ``like``.

    Raises:
        InputError: if the file cannot be read, or listing the tensors that are missing, left over
            or of another shape.
    """
    leaves = named_leaves(like)
    reading = _best_reading(_tensors(path), leaves, network)
    if reading.problems:
        rest = len(reading.problems) - _SHOWN
        more = f"; and {rest} more" if rest > 0 else ""
        raise InputError(f"{path}: {'; '.join(reading.problems[:_SHOWN])}{more}")
    found = {name: _as_leaf(path, name, reading.arrays[name], leaves[name]) for name in leaves}
    arrays = [found[name] for name in leaves]
    structure = cast(Any, jax.tree.structure(like))
    return cast(dict[str, Any], jax.tree.unflatten(structure, arrays))


def _tensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    try:
        open_file(path).close()  # of a FIFO or device, safetensors would wait
        opened: Any = safetensors.safe_open(path, framework="numpy")  # has no annotations
        with opened as file:
            names = list(file.keys())
            dtypes = {name: str(file.get_slice(name).get_dtype()) for name in names}
            if unknown := [name for name in names if not dtypes[name].startswith(_KNOWN)]:
                name = unknown[0]
                raise InputError(f"{path}: {name} is {dtypes[name]}, a dtype that NumPy lacks")
            return {name: file.get_tensor(name) for name in names}
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{path}: not readable as safetensors: {error}") from error


def _names(paths: list[str]) -> dict[str, str]:
    """Path of a leaf -> its name in a file: without the collection, where that is unique."""
    short = {path: path.partition("/")[2] or path for path in paths}
    taken = list(short.values())
    return {path: name if taken.count(name) == 1 else path for path, name in short.items()}


def _best_reading(
    tensors: Mapping[str, np.ndarray], leaves: Mapping[str, Any], network: Network
) -> _Reading:
    """The first reading without a problem, or else that with the fewest."""
    readings: list[_Reading] = []
    for named in _shortened(tensors):
        readings.append(_by_path(named, leaves))
        if readings[-1].problems:
            readings.append(_checked(torch_tensors(named, leaves, network), leaves))
        if not readings[-1].problems:
            return readings[-1]
    return min(readings, key=lambda reading: len(reading.problems))


def _shortened(tensors: Mapping[str, np.ndarray]) -> Iterator[Mapping[str, np.ndarray]]:
    """Tensors by their names, and without what all names begin with, one part less at a time."""
    yield tensors
    shared = {re.split(r"(?<=[./])", name, maxsplit=1)[0] for name in tensors}
    if len(shared) == 1 and not shared & tensors.keys():
        prefix = shared.pop()
        yield from _shortened({name.removeprefix(prefix): x for name, x in tensors.items()})


def _by_path(tensors: Mapping[str, np.ndarray], leaves: Mapping[str, Any]) -> _Reading:
    """The reading of names as paths of leaves."""
    known = {name.replace(".", "/"): path for path, name in _names(list(leaves)).items()}
    known |= {path.replace(".", "/"): path for path in leaves}
    arrays: dict[str, np.ndarray] = {}
    left = []
    for name, tensor in tensors.items():
        path = known.get(name.replace(".", "/"))
        if path is None or path in arrays:
            left.append(name)
        else:
            arrays[path] = tensor
    return _checked(FoundTensors(arrays, [], left), leaves)


def _checked(found: FoundTensors, leaves: Mapping[str, Any]) -> _Reading:
    """A reading with all that is wrong with it."""
    arrays, unclear, left = found
    missing = [path for path in leaves if path not in (*arrays, *unclear)]
    problems = [f"{path} is missing" for path in missing]
    problems += [
        f"{path}: expected by this path, in its own layout: PyTorch's does not tell it"
        for path in unclear
    ]
    problems += [
        f"{path}: expected {tuple(leaves[path].shape)}, got {array.shape}"
        for path, array in arrays.items()
        if array.shape != tuple(leaves[path].shape)
    ]
    problems += [f"{name} is not known" for name in left]
    return _Reading(arrays, problems)


def _as_leaf(path: Any, name: str, array: np.ndarray, leaf: Any) -> np.ndarray:
    """An array in the dtype of its leaf."""
    is_float = np.issubdtype(leaf.dtype, np.floating) or str(leaf.dtype) == "bfloat16"
    given_float = np.issubdtype(array.dtype, np.floating) or str(array.dtype) == "bfloat16"
    if is_float != given_float:
        raise InputError(f"{path}: {name}: expected {leaf.dtype}, got {array.dtype}")
    with np.errstate(over="ignore"):  # infinite numbers are refused where they are used
        return array.astype(leaf.dtype)
