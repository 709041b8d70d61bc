"""The settings that the results of a part of a run folder, or of a study, are made with."""

import pathlib
import typing
from collections.abc import Collection
from typing import Any

from jnnk._core.errors import InputError
from jnnk.files.schema import JsonObject, conform
from jnnk.runs.json_files import read_json, to_json, write_json

FORMAT = 1
"""The version of what all folders hold."""


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


def note_or_check_settings(
    folder: pathlib.Path, settings: Any, *, free: Collection[str] = ()
) -> None:
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
    require_format(folder, found["format"])
    found |= {name: settings[name] for name in free}
    if found != settings:
        raise InputError(
            f"{folder} holds results made with other settings "
            f"({describe_changes(found, settings)}); delete that folder to make them anew"
        )


def require_format(folder: pathlib.Path, found: object) -> None:
    """Refuses a folder of another version.

    Args:
        folder: the folder.
        found: the format that it has noted.

    Raises:
        InputError: if that is not `FORMAT`.
    """
    if type(found) is not int or found != FORMAT:
        raise InputError(
            f"{folder} was written in run-folder format {found!r}, this version reads {FORMAT}"
        )


def describe_changes(found: JsonObject, wanted: JsonObject) -> str:
    """The keys in which two JSON objects differ, with both values."""
    different = sorted(
        key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key)
    )
    return ", ".join(f"{key} {found.get(key)!r} -> {wanted.get(key)!r}" for key in different)
