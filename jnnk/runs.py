"""Run folders: the files of one run, written so that a kill at any moment loses nothing done.

Layout of a run folder::

    config.json       what was asked for; written first
    checkpoints/      training, one folder an epoch (orbax)
    metrics.jsonl     one line an epoch of training
    overlap/          one .npz and .json per epoch and layer measured, random/ for the control,
                      pictures of channels, tables/ of all records and matrices
    prune/            sweep.json, masks.safetensors, checkpoints/ and metrics.jsonl of fine-tuning
    results.json      every number the report shows
    figures/          the report's pictures, PNG and SVG
    report.html
"""

import contextlib
import fcntl
import json
import os
import pathlib
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import numpy as np

from jnnk.errors import InputError
from jnnk.processes import is_first, on_first

FORMAT = 1


class Run(NamedTuple):
    """An open run folder.

    Attributes:
        path: the folder.
        config: what ``config.json`` holds.
    """

    path: pathlib.Path
    config: dict[str, Any]


def to_json(value: Any) -> Any:
    """The value in JSON's terms: arrays become lists, NaN and infinities become null."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
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

    Raises:
        OSError: naming the file, if it cannot be written.
    """

    def write():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError as error:  # a full disk does not say which file it was
            raise OSError(error.errno, error.strerror, str(path)) from error

    on_first(write, name=f"writing {path}")


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes a value as JSON (see :func:`to_json`), atomically."""
    write_bytes(path, (json.dumps(to_json(value), indent=1, allow_nan=False) + "\n").encode())


def read_json(path: pathlib.Path) -> Any:
    """Reads a JSON file.

    Raises:
        InputError: if it is missing or not JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: not readable as JSON ({error}); delete it to make it anew"
        ) from None


def write_json_lines(path: pathlib.Path, records: list[dict]) -> None:
    """Writes records as JSON lines, atomically: a log cut short by a kill never has half a line."""
    lines = "".join(json.dumps(to_json(record), allow_nan=False) + "\n" for record in records)
    write_bytes(path, lines.encode())


def read_json_lines(path: pathlib.Path) -> list[dict]:
    """The records of a JSON-lines file; none if it does not exist.

    Raises:
        InputError: if a line is not JSON.
    """
    if not path.exists():
        return []
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as JSON lines ({error})") from None


def create_run(path: str | os.PathLike, config: dict[str, Any], *, resume: bool = False) -> Run:
    """Makes a run folder, or opens the one there if it was made for the same config.

    Args:
        path: the folder; made with its parents if missing.
        config: JSON-able description of what is asked for.
        resume: go on with a folder that already holds this run.

    Raises:
        InputError: if the folder cannot be written, holds something else, holds another run, or
            holds this run and ``resume`` is off.
    """
    folder = pathlib.Path(path)
    config = {"format": FORMAT, **to_json(config)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        visible = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
        if not visible:
            write_json(folder / "config.json", config)
            return Run(folder, config)
        writable = os.access(folder, os.W_OK)
    except OSError as error:
        raise InputError(f"cannot write the run folder {folder}: {error.strerror}") from None
    if not writable:
        raise InputError(f"cannot write the run folder {folder}: permission denied")
    found = open_run(folder).config
    if not resume:
        raise InputError(
            f"{folder} already holds a run; go on with --resume or name another folder"
        )
    if found != config:
        changes = describe_changes(found, config)
        raise InputError(
            f"{folder} holds a run with other settings ({changes}); name another folder"
        )
    return Run(folder, found)


def open_run(path: str | os.PathLike) -> Run:
    """Opens an existing run folder.

    Raises:
        InputError: if there is none, it is half-written, or another version wrote it.
    """
    folder = pathlib.Path(path)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such run folder")
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{folder} is not a run folder or only half of one: it has no config.json; "
            "delete it or name another folder"
        )
    config = read_json(folder / "config.json")
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else config
        raise InputError(
            f"{folder} was written in run-folder format {found!r}, this version reads {FORMAT}"
        )
    return Run(folder, config)


def require_settings(folder: pathlib.Path, settings: Any, *, free: Collection[str] = ()) -> None:
    """Notes the settings that a folder's results are made with, or checks them against the note.

    Args:
        folder: part of a run folder; gets ``settings.json``.
        settings: NamedTuple of the settings.
        free: names of settings that choose which results are made, not what they are.

    Raises:
        InputError: if the folder's results were made with other settings.
    """
    path = folder / "settings.json"
    defaults = to_json(getattr(settings, "_field_defaults", {}))
    settings = to_json(settings)
    if not path.exists():
        write_json(path, settings)
    # A setting that is newer than the folder had its default's effect.
    found = {**defaults, **read_json(path), **{name: settings[name] for name in free}}
    if found != settings:
        raise InputError(
            f"{folder} holds results made with other settings "
            f"({describe_changes(found, settings)}); delete that folder to make them anew"
        )


def describe_changes(found: dict, wanted: dict) -> str:
    """The keys in which two JSON objects differ, with both values."""
    different = sorted(
        key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key)
    )
    return ", ".join(f"{key} {found.get(key)!r} -> {wanted.get(key)!r}" for key in different)


@contextlib.contextmanager
def locked(path: str | os.PathLike) -> Iterator[None]:
    """Keeps a second command out of a run folder; the system drops the lock when we die.

    Raises:
        InputError: if another process holds it.
    """
    if not is_first():  # of several processes of one command, the first one holds it
        yield
        return
    folder = pathlib.Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise InputError(f"cannot write the run folder {folder}: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{folder} is in use by another jnnk process") from None
        yield
