"""Numpy archives (.npz) read as files of strangers are: whole, unpickled, or an error."""

import pathlib
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Collection

import numpy as np

from jnnk.errors import InputError

# What numpy and zipfile raise for an archive that is none, is cut short or had bytes changed.
_DAMAGED = (
    OSError, ValueError, KeyError, EOFError, NotImplementedError, RuntimeError, MemoryError,
    SyntaxError, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def read_archive(
    path: pathlib.Path, required: Collection[str], *, optional: Collection[str] = ()
) -> dict[str, np.ndarray]:
    """The arrays of an archive whose names are known.

    Nothing is unpickled, an array's checksum is verified, and memory is touched only as far as the
    file fills it, whatever its headers promise.

    Args:
        path: the file.
        required: names of arrays that must be there.
        optional: names of arrays that may be there besides.

    Returns:
        The arrays by name.

    Raises:
        InputError: if the file is missing or damaged, if an array is missing or is none of those
            named, or holds Python objects.
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


def _read(
    path: pathlib.Path, choose: Callable[[set[str]], Collection[str]]
) -> dict[str, np.ndarray]:
    """The arrays whose names ``choose`` takes from those in the archive."""
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            found = {name.removesuffix(".npy") for name in archive.namelist()}
            return {name: _read_array(archive, name) for name in sorted(choose(found))}
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


def _read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(f"{name}.npy") as member:
        array = np.lib.format.read_array(member, allow_pickle=False)
        if member.read(1):  # to the end, where the checksum is verified
            raise ValueError(f"{name} is longer than its header says")
        return array
