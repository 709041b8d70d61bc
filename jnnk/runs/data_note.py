"""The note in ``config.json`` of which data a run is of."""

import pathlib
from typing import Any, NamedTuple

from jnnk._core.errors import InputError
from jnnk.files.schema import conform


class DataNote(NamedTuple):
    """Which data were read."""

    recorded_by: str  # the command that read them first
    fingerprint: dict[str, str]  # of :func:`jnnk.data.fingerprint`


def read_note(value: Any, path: pathlib.Path) -> DataNote:
    """The note that a JSON file holds.

    Args:
        value: what stands there.
        path: of the file.

    Raises:
        InputError: if it is no note.
    """
    try:
        return conform(value, DataNote)
    except ValueError as error:
        raise InputError(f"{path}: no note of a data set ({error})") from None
