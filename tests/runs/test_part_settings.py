from typing import NamedTuple

import pytest

from jnnk import InputError
from jnnk.runs.json_files import read_json, write_json
from jnnk.runs.part_settings import note_or_check_settings


class Settings(NamedTuple):
    neighbors: int
    layers: tuple[str, ...]


def test_settings_of_a_part_are_noted_and_checked(tmp_path):
    note_or_check_settings(tmp_path, Settings(5, ("a",)), free=("layers",))
    note_or_check_settings(tmp_path, Settings(5, ("b",)), free=("layers",))
    with pytest.raises(InputError, match="neighbors 5 -> 6"):
        note_or_check_settings(tmp_path, Settings(6, ("a",)), free=("layers",))
    noted = read_json(tmp_path / "settings.json")
    assert noted == {"format": 1, "neighbors": 5, "layers": ["a"]}
    write_json(tmp_path / "settings.json", {"neighbors": 5, "layers": ["a"]})  # the first ones
    note_or_check_settings(tmp_path, Settings(5, ("b",)), free=("layers",))
    for other in (2, True, "1", None):
        write_json(tmp_path / "settings.json", {**noted, "format": other})
        with pytest.raises(InputError, match=f"format {other!r}, this version reads 1"):
            note_or_check_settings(tmp_path, Settings(5, ("a",)), free=("layers",))
