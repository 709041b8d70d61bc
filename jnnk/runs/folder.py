"""Run folders: the files of one run, written so that a kill at any moment loses nothing done.

Layout of a run folder::

    config.json       what was asked for, and a note of the data; written first
    network.json      of a network of one's own: its name and its variables
    cores.json        how many processor cores worked on it
    checkpoints/      training, one folder an epoch (orbax)
    metrics.jsonl     one line an epoch of training
    overlap/          one .npz and .json per epoch and layer measured, random/ for the control,
                      pictures of channels, tables/ of all records and matrices
    prune/            sweep.json, result.json, masks.safetensors, tables/, checkpoints/ and
                      metrics.jsonl of fine-tuning
    channels/         the same for whole channels, a folder for each criterion
    protocol/         the same for pruning after an L1 training, a folder for each protocol
    results.json      every number the report shows
    figures/          the report's pictures, PNG and SVG
    report.html
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import shutil
import typing
from collections.abc import Callable, Collection, Generator, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from jnnk._core.errors import InputError
from jnnk.files.file_lock import file_lock
from jnnk.files.safe_files import read_file, refuse_links, remove_partial, replace_file, resolved
from jnnk.files.schema import JsonObject, as_object, conform
from jnnk.parallel import is_first, on_first
from jnnk.runs.data_note import DataNote, read_note

Record = TypeVar("Record")

FORMAT = 1
_LIMIT = 2**27  # bytes of a JSON file; a line of metrics has an error for every channel at most
_DEPTH = 20
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # control characters, halves
NEWER = {"image_size": None}
"""Settings that the first run folders lack, with the effect that they had there."""
_DATA = "data"  # key of `config.json` beside the settings: which data the run is of


class Run(NamedTuple):
    """An open run folder."""

    path: pathlib.Path  # the folder
    config: JsonObject  # the settings in `config.json`, and the format of the folder
    data: DataNote | None = None  # which data it is of, where `config.json` has a note of that

    def as_object(self) -> JsonObject:
        """What `config.json` holds."""
        return self.config if self.data is None else {**self.config, _DATA: to_json(self.data)}


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


def kept(path: pathlib.Path, measure: Callable[[], Record], *, kind: Any) -> Record:
    """What a file holds, in the form of ``kind``; measured first where there is none.

    The file is whole or missing whenever the process dies, and what was just measured is read
    back from it, so that a command gives the same results in one go and in many.

    Args:
        path: of the file.
        measure: makes what it holds.
        kind: as of :func:`read_json`.
    """
    if not path.exists():
        write_json(path, measure())
    return read_json(path, kind=kind)


def read_settings(path: pathlib.Path, kind: type) -> JsonObject:
    """The settings that a file has noted; none if it does not exist.

    Args:
        path: the file.
        kind: NamedTuple of the settings, some of which may be missing.

    Raises:
        InputError: as of :func:`read_json`.
    """
    if not path.exists():
        return {}
    found = read_json(path, kind=JsonObject)
    try:
        return {
            name: conform(found[name], hint, where=name)
            for name, hint in typing.get_type_hints(kind).items()
            if name in found
        }
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


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
        _check_json(value)
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


def _check_json(value: Any, depth: int = 0) -> None:
    """Refuses what no file of ours has, and what others that read our files would stumble on."""
    if depth > _DEPTH:
        raise ValueError(f"nested more than {_DEPTH} deep")
    if isinstance(value, dict):
        for key, item in cast(dict[Any, Any], value).items():
            _check_json(key, depth)
            _check_json(item, depth + 1)
    elif isinstance(value, list):
        for item in cast(list[Any], value):
            if isinstance(item, str | dict | list):
                _check_json(item, depth + 1)
    elif isinstance(value, str) and (found := _UNPRINTABLE.search(value)):
        raise ValueError(f"the character {found[0]!a} in a text")


def create_run(path: str | os.PathLike[str], config: JsonObject, *, resume: bool = False) -> Run:
    """Makes a run folder, or opens the one there if it was made for the same config.

    Args:
        path: the folder; made with its parents if missing.
        config: JSON-able description of what is asked for.
        resume: go on with a folder that already holds this run.

    Raises:
        InputError: if the folder cannot be written, holds something else, holds another run, or
            holds this run and ``resume`` is off.
    """
    folder = resolved(path)
    config = {"format": FORMAT, **to_json(config)}
    try:
        _check_json(config)
    except ValueError as error:
        raise InputError(f"settings that config.json cannot hold: {error}") from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not _holds_anything(folder):
            write_json(folder / "config.json", config)
            return Run(folder, config)
        writable = os.access(folder, os.W_OK)
    except OSError as error:
        raise InputError(f"cannot write the run folder {folder}: {error.strerror}") from None
    if not writable:
        raise InputError(f"cannot write the run folder {folder}: permission denied")
    refuse_occupied(folder, resume=resume)
    run = open_run(folder)
    if {**NEWER, **run.config} != {**NEWER, **config}:
        changes = describe_changes(run.config, config)
        raise InputError(
            f"{folder} holds a run with other settings ({changes}); name another folder"
        )
    return run


def refuse_occupied(path: str | os.PathLike[str], *, resume: bool = False) -> None:
    """Refuses a folder that no run can be made in, and touches nothing.

    Args:
        path: the folder; it need not exist.
        resume: whether it may hold a run already.

    Raises:
        InputError: if it holds something else, or a run and ``resume`` is off.
    """
    folder = pathlib.Path(path)
    if not _holds_anything(folder):
        return
    open_run(folder)
    if not resume:
        raise InputError(
            f"{folder} already holds a run; go on with --resume or name another folder"
        )


def refuse_foreign(path: str | os.PathLike[str]) -> None:
    """Refuses a folder of something else than a study's results, and touches nothing.

    Args:
        path: the folder; it need not exist.

    Raises:
        InputError: if it holds files, but neither the settings nor the data of a study.
    """
    folder = pathlib.Path(path)
    is_study = any((folder / name).is_file() for name in ("settings.json", "data.json"))
    if _holds_anything(folder) and not is_study:
        raise InputError(
            f"{folder} holds something else than a study (no settings.json); name another folder"
        )


def refuse_inside_run(path: pathlib.Path, *, of: pathlib.Path) -> None:
    """Refuses to put what is exported among the files of a run.

    Args:
        path: where it is to go, resolved; it need not exist.
        of: the run folder that it is of, resolved. Its folder ``torch`` is no part of the run.

    Raises:
        InputError: naming the run folder that ``path`` is or lies in.
    """
    if path == of / "torch":
        return
    for folder in (path, *path.parents):
        if _is_run(folder):
            raise InputError(
                f"--out: {path} is or lies in the run folder {folder}; name a folder outside of "
                f"run folders, or {of / 'torch'}"
            )


def _is_run(folder: pathlib.Path) -> bool:
    """Whether a folder's ``config.json`` is one of ours, of any version."""
    try:
        config = json.loads(read_file(folder / "config.json", limit=_LIMIT))
    except (InputError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and {"format", "dataset"} <= config.keys()


def remove_parts(folder: pathlib.Path) -> None:
    """Removes all that a run has put into its folder; hidden files, ours or not, stay.

    Args:
        folder: the run folder.
    """
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _holds_anything(folder: pathlib.Path) -> bool:
    """Whether a folder has files that are not hidden."""
    try:
        return folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir())
    except OSError as error:
        raise InputError(f"cannot read the folder {folder}: {error.strerror}") from None


def open_run(path: str | os.PathLike[str]) -> Run:
    """Opens an existing run folder.

    Args:
        path: the folder, or a link to it; inside of it links are refused.

    Raises:
        InputError: if there is none, it is half-written, another version wrote it, or there is
            anything in it but folders and files.
    """
    folder = resolved(path)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such run folder")
    try:
        (folder / "config.json").lstat()
    except FileNotFoundError:
        raise InputError(
            f"{folder} is not a run folder or only half of one: it has no config.json; "
            "name another folder"
        ) from None
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}") from None
    refuse_links(folder)
    path = folder / "config.json"
    config: Any = read_json(path)
    settings = cast(JsonObject, config) if isinstance(config, dict) else {}
    _require_format(folder, settings.get("format"))
    data = read_note(settings.pop(_DATA), path) if _DATA in settings else None
    return Run(folder, settings, data)


def _require_format(folder: pathlib.Path, found: object) -> None:
    if type(found) is not int or found != FORMAT:
        raise InputError(
            f"{folder} was written in run-folder format {found!r}, this version reads {FORMAT}"
        )


def require_settings(folder: pathlib.Path, settings: Any, *, free: Collection[str] = ()) -> None:
    """Notes the settings that a folder's results are made with, or checks them against the note.

    Args:
        folder: part of a run folder, or of a study; gets ``settings.json``.
        settings: NamedTuple of the settings.
        free: names of settings that choose which results are made, not what they are.

    Raises:
        InputError: if the folder's results were made with other settings, or by a version of jnnk
            that wrote another format.
    """
    path = folder / "settings.json"
    defaults = to_json(getattr(settings, "_field_defaults", {}))
    settings = {"format": FORMAT, **to_json(settings)}
    if not path.exists():
        write_json(path, settings)
    # The first folders have no format. A setting newer than the folder had its default's effect.
    found = {"format": 1, **defaults, **read_json(path, kind=JsonObject)}
    _require_format(folder, found["format"])
    found |= {name: settings[name] for name in free}
    if found != settings:
        raise InputError(
            f"{folder} holds results made with other settings "
            f"({describe_changes(found, settings)}); delete that folder to make them anew"
        )


def describe_changes(found: JsonObject, wanted: JsonObject) -> str:
    """The keys in which two JSON objects differ, with both values."""
    different = sorted(
        key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key)
    )
    return ", ".join(f"{key} {found.get(key)!r} -> {wanted.get(key)!r}" for key in different)


@contextlib.contextmanager
def locked(
    path: str | os.PathLike[str],
    *,
    shared: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Generator[None]:
    """Keeps a second command out of a run folder; the system drops the lock when we die.

    What a killed command left half-written is removed, and after an error the folder or the lock's
    file that was made for it.

    Args:
        path: the folder, made if it is missing.
        shared: lets in others that read too, and writes nothing.
        say: told where the file system has no locks.

    Raises:
        InputError: if another process holds it, or the folder cannot be written.
    """
    if not is_first():  # of several processes of one command, the first one holds it
        yield
        return
    folder = resolved(path)
    lock = folder / ".lock"
    was_there = os.path.lexists(lock)
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    with contextlib.ExitStack() as stack:
        try:
            is_held = stack.enter_context(file_lock(lock, shared=shared))
        except OSError as error:
            raise InputError(f"cannot write the run folder {folder}: {error.strerror}") from None
        if is_held is False:
            raise InputError(f"{folder} is in use by another jnnk process")
        if is_held is None and not shared:
            say(f"{folder}: its file system has no locks; see that no other command works in it")
        try:
            if was_there:
                refuse_links(folder)
            if was_there and not shared:
                remove_partial(folder)
            yield
        except BaseException:
            if not (was_there or shared):
                _forget(lock, made)
            raise


def _forget(lock: pathlib.Path, made: list[pathlib.Path]) -> None:
    """Removes a lock's file, and the folders made for it that hold nothing else."""
    with contextlib.suppress(OSError):
        lock.unlink()
        for folder in made:
            folder.rmdir()
