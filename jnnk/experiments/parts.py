"""Results in parts, each measured once and kept in a file of its own."""

import pathlib
from collections.abc import Callable
from typing import Any

from jnnk.runs.folder import read_json, write_json


def kept(path: pathlib.Path, measure: Callable[[], Any]) -> Any:
    """What a part's file holds; measured first where there is none.

    The file is whole or missing whenever the process dies, and what was just measured is read
    back from it, so that a command gives the same results in one go and in many.

    Args:
        path: the part's JSON file.
        measure: makes its content.
    """
    if not path.exists():
        write_json(path, measure())
    return read_json(path)
