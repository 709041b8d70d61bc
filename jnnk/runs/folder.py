"""Run folders: the files of one run, written so that a kill at any moment loses nothing done.

Layout of a run folder::

    config.json       what was asked for, and a note of the data; written first
    network.json      of a network of one's own: its name and its variables
    cores.json        how many processor cores worked on it
    checkpoints/      training, one folder for each epoch kept (orbax)
    metrics.jsonl     one line for each epoch of training
    unfinished/       the state within an epoch that a signal broke off
    tensorboard/      the metrics, where tensorboardX is installed
    overlap/          one .npz and .json per epoch and layer measured, random/ for the control,
                      pictures of channels, tables/ of all records and matrices
    prune/            sweep.json, result.json, masks.safetensors, tables/, checkpoints/ and
                      metrics.jsonl of fine-tuning
    channels/         whole channels: result.json, masks.safetensors and the fine-tuning, a folder
                      for each criterion
    protocol/         pruning after an L1 training: result.json, a folder for each protocol
    results.json      every number the report shows
    figures/          the report's pictures, PNG and SVG, and their numbers, CSV
    torch/            what was exported for PyTorch
    report.html

Each part has the settings it was made with in a ``settings.json``; ``.lock`` keeps others out.
"""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Callable, Generator
from typing import Any, NamedTuple, cast

from jnnk._core.errors import InputError
from jnnk.files.file_lock import file_lock
from jnnk.files.safe_files import refuse_links, remove_partial, resolved
from jnnk.files.schema import JsonObject
from jnnk.parallel import is_first
from jnnk.runs.data_note import DataNote, read_note
from jnnk.runs.json_files import check_json, read_json, to_json, write_json
from jnnk.runs.part_settings import FORMAT, describe_changes, require_format

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
        check_json(config)
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
        config = read_json(folder / "config.json")
    except InputError:
        return False
    return isinstance(config, dict) and {"format", "dataset"} <= config.keys()


def remove_parts(folder: pathlib.Path) -> None:
    """Removes everything in a folder but hidden files, whoever made it.

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
    require_format(folder, settings.get("format"))
    data = read_note(settings.pop(_DATA), path) if _DATA in settings else None
    return Run(folder, settings, data)


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
