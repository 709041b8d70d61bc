"""Numpy archives (.npz) read as untrusted files are: whole, unpickled, or an error."""

import math
import pathlib
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Collection, Mapping

import numpy as np

from jnnk._core.errors import InputError
from jnnk.files.safe_files import open_file

# An archive may unpack to so many bytes, or to so many times its own size if that is more. Deflate
# reaches a thousand times; images and activations, of which few are zero, ten times.
_UNPACKED, _RATIO = 2**28, 100
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_KINDS = {"f": "floats", "i": "integers", "u": "uint8"}
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # what numpy writes
# What numpy and zipfile raise for an archive that is none, is cut short or had bytes changed.
_DAMAGED = (
    OSError, ValueError, KeyError, EOFError, NotImplementedError, RuntimeError, MemoryError,
    SyntaxError, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def read_archive(
    path: pathlib.Path, required: Collection[str], *, optional: Collection[str] = ()
) -> dict[str, np.ndarray]:
    """The arrays of an archive whose names are known.

    Nothing is unpickled, an array's checksum is verified, and sizes are looked at before anything
    is unpacked: those of all arrays together, and of each whether its header fits its size.

    Args:
        path: the file.
        required: names of arrays that must be there.
        optional: names of arrays that may be there besides.

    Returns:
        The arrays by name.

    Raises:
        InputError: if the file is missing, damaged or unpacks to much more than data does, if an
            array is missing or is none of those named, or holds Python objects.
    """

    def choose(found):
        _check_names(path, found, required, optional)
        return found

    return _read(path, choose)


def read_folder(path: pathlib.Path, folder: str) -> dict[str, np.ndarray]:
    """The arrays of one folder in an archive, read with the same care as by `read_archive`.

    Args:
        path: the file.
        folder: what stands before the names of its arrays, such as ``"epoch19/"``.

    Returns:
        The arrays by name without the folder; none where it is not there.

    Raises:
        InputError: if the file is missing, or it or one of the arrays is damaged or holds Python
            objects.
    """
    arrays = _read(path, lambda found: {name for name in found if name.startswith(folder)})
    return {name.removeprefix(folder): array for name, array in arrays.items()}


def check_axes(
    path: pathlib.Path, arrays: Mapping[str, np.ndarray], axes: Mapping[str, str]
) -> None:
    """Refuses arrays of other dtypes or shapes than named.

    Args:
        path: of the file they are from, for the error.
        arrays: by name.
        axes: by name a kind of dtype (``"f"`` floats, ``"i"`` integers, ``"u"`` bytes) and a letter
            an axis, such as ``"f C C"``. Axes of one letter are as long in all arrays, and 1 or
            longer; ``D`` is 1 or 3.

    Raises:
        InputError: naming the array.
    """
    lengths: dict[str, int] = {}
    for name, wanted in axes.items():
        kind, *letters = wanted.split()
        array = arrays[name]
        fits = array.ndim == len(letters) and array.dtype.kind == kind
        fits &= kind != "u" or array.dtype == np.uint8
        for letter, length in zip(letters, array.shape, strict=False):
            fits &= lengths.setdefault(letter, length) == length > 0
            fits &= letter != "D" or length in (1, 3)
        if not fits:
            raise InputError(
                f"{path}: {name}: expected {_KINDS[kind]} of shape ({', '.join(letters)}), got "
                f"{array.dtype} of shape {array.shape}"
            )


def _read(
    path: pathlib.Path, choose: Callable[[set[str]], Collection[str]]
) -> dict[str, np.ndarray]:
    """The arrays whose names ``choose`` takes from those in the archive."""
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            names = sorted(choose(set(members)))
            limit = max(_UNPACKED, _RATIO * path.stat().st_size)
            unpacked = sum(members[name].file_size for name in names)
            if unpacked > limit:
                raise InputError(
                    f"{path}: unpacks to {unpacked / 2**20:,.0f} MiB, more than the "
                    f"{limit / 2**20:,.0f} MiB that are taken for data"
                )
            return {name: _read_array(archive, members[name]) for name in names}
    except InputError:
        raise
    except _DAMAGED as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read as a numpy archive ({reason})") from None


def _check_names(
    path: pathlib.Path, found: set[str], required: Collection[str], optional: Collection[str]
) -> None:
    missing = [name for name in required if name not in found]
    unknown = sorted(found - {*required, *optional})
    if missing or unknown:
        expected = ", ".join(required) + (f" and perhaps {', '.join(optional)}" if optional else "")
        raise InputError(
            f"{path}: expected the arrays {expected}, it has {', '.join(sorted(found)) or 'none'}"
        )


def _read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    if info.compress_type not in _METHODS:
        raise ValueError(f"{info.filename} is packed in a way that numpy does not use")
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        read_header = _HEADERS.get(version)
        if read_header is None:
            raise ValueError(f"{info.filename} has a header of version {version}")
        shape, _, dtype = read_header(member)
        left = info.file_size - member.tell()
    if not all(type(length) is int and length >= 0 for length in shape):  # numpy takes True for 1
        raise ValueError(f"{info.filename} has a header of shape {shape}")
    if not dtype.hasobject and math.prod(shape) * dtype.itemsize != left:
        raise ValueError(f"{info.filename} holds {left} bytes, its header says {shape} {dtype}")
    with archive.open(info) as member:
        array = np.lib.format.read_array(member, allow_pickle=False)
        if member.read(1):  # to the end, where the checksum is verified
            raise ValueError(f"{info.filename} is longer than its header says")
        return array
