"""JSON files, written whole or not at all, and read as values of a given form."""

import dataclasses
import json
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import numpy as np

from jnnk._core.errors import InputError
from jnnk.files.safe_files import read_file, replace_file
from jnnk.files.schema import JsonObject, as_object, conform
from jnnk.parallel import on_first

Record = TypeVar("Record")

_LIMIT = 2**27  # bytes of a JSON file; a line of metrics has an error for every channel at most
_DEPTH = 20
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # control characters, halves


def to_json(value: Any) -> Any:
    """The value in JSON's terms: arrays become lists, NaN and infinities become null."""
    if dataclasses.is_dataclass(value):
        value = as_object(value)
    elif hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in cast(dict[Any, Any], value).items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in cast(Sequence[Any], value)]
    if isinstance(value, pathlib.Path):
        return str(value)
    if hasattr(value, "dtype"):
        return to_json(np.asarray(value).tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Writes a whole file or nothing: to a hidden neighbour, synced, then renamed over it.

    Of several processes all must call it, and the first one writes.

    Args:
        path: see :func:`jnnk.files.safe_files.replace_file`.
        content: of the file.

    Raises:
        InputError: if a folder on the way is a link.
        OSError: naming the file, if it cannot be written.
    """
    on_first(lambda: replace_file(path, content), name=f"writing {path}")


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes a value as JSON (see :func:`to_json`), atomically."""
    write_bytes(path, (json.dumps(to_json(value), indent=1, allow_nan=False) + "\n").encode())


def read_json(path: pathlib.Path, *, kind: Any = Any) -> Any:
    """Reads a JSON file that may come from anyone.

    Args:
        path: the file.
        kind: what it must hold, an annotation that :func:`jnnk.files.schema.conform` understands.

    Returns:
        What it holds, as ``kind`` has it.

    Raises:
        InputError: if it is missing, no regular file, larger than 128 MiB, not JSON, deeper than
            any of ours, with numbers or characters that no record of ours has, or not of the kind.
    """
    return _from_json(path, read_file(path, limit=_LIMIT), kind, "JSON")


def read_or_measure(path: pathlib.Path, measure: Callable[[], Record], *, kind: Any) -> Record:
    """Reads a file in the form of ``kind``; measures and writes it first where there is none.

    The file is whole or missing whenever the process dies, and what was just measured is read
    back from it, so that a command gives the same results in one go and in many.

    Args:
        path: of the file.
        measure: makes what it holds.
        kind: as of :func:`read_json`.

    Raises:
        InputError: as of :func:`read_json`.
    """
    if not path.exists():
        write_json(path, measure())
    return read_json(path, kind=kind)


def write_json_lines(path: pathlib.Path, records: Sequence[Any]) -> None:
    """Writes records as JSON lines, atomically: a log cut short by a kill never has half a line."""
    lines = "".join(json.dumps(to_json(record), allow_nan=False) + "\n" for record in records)
    write_bytes(path, lines.encode())


def read_json_lines(path: pathlib.Path, *, kind: Any = JsonObject) -> list[Any]:
    """The records of a JSON-lines file; none if it does not exist.

    Args:
        path: the file.
        kind: what every line must hold.

    Raises:
        InputError: as of :func:`read_json`.
    """
    if not path.exists():
        return []
    lines = read_file(path, limit=_LIMIT).splitlines()
    return [_from_json(path, line, kind, "JSON lines") for line in lines]


def _from_json(path: pathlib.Path, content: bytes, kind: Any, form: str) -> Any:
    try:
        value = json.loads(
            content.decode(), parse_int=_integer, parse_float=_float, parse_constant=_float
        )
        check_json(value)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: not readable as {form} ({error}); delete it to make it anew"
        ) from None
    try:
        return conform(value, kind)
    except ValueError as error:
        raise InputError(f"{path}: {error}; delete it to make it anew") from None


def _integer(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= int(text) < 2**63:
        raise ValueError(f"an integer of {len(text)} digits")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if not np.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value


def check_json(value: Any, *, depth: int = 0) -> None:
    """Refuses what no file of ours has, and what others that read our files would stumble on."""
    if depth > _DEPTH:
        raise ValueError(f"nested more than {_DEPTH} deep")
    if isinstance(value, dict):
        for key, item in cast(dict[Any, Any], value).items():
            check_json(key, depth=depth)
            check_json(item, depth=depth + 1)
    elif isinstance(value, list):
        for item in cast(list[Any], value):
            if isinstance(item, str | dict | list):
                check_json(item, depth=depth + 1)
    elif isinstance(value, str) and (found := _UNPRINTABLE.search(value)):
        raise ValueError(f"the character {found[0]!a} in a text")
