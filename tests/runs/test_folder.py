import json
import os
import subprocess
import sys
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from jnnk import InputError
from jnnk.runs import folder as runs
from jnnk.runs.contents import train_config
from jnnk.runs.settings import TrainConfig

CONFIG = {"model": "resnet8", "epochs": 2}


class Settings(NamedTuple):
    neighbors: int
    layers: tuple[str, ...]


def test_json_has_no_nan_and_no_arrays():
    value = {
        "a": jnp.float32(1.5),
        "b": np.array([1.0, np.nan]),
        "c": Settings(3, ("x",)),
        4: -np.inf,
    }
    assert runs.to_json(value) == {
        "a": 1.5,
        "b": [1.0, None],
        "c": {"neighbors": 3, "layers": ["x"]},
        "4": None,
    }


def test_a_new_run_is_what_is_opened(tmp_path):
    made = runs.create_run(tmp_path / "new" / "run", CONFIG)
    assert made == runs.open_run(made.path)
    assert made.config["model"] == "resnet8"


def test_an_existing_run_needs_resume_and_the_same_settings(tmp_path):
    runs.create_run(tmp_path, CONFIG)
    with pytest.raises(InputError, match="already holds a run; go on with --resume"):
        runs.create_run(tmp_path, CONFIG)
    assert runs.create_run(tmp_path, CONFIG, resume=True).config["epochs"] == 2
    with pytest.raises(InputError, match="epochs 2 -> 3"):
        runs.create_run(tmp_path, {**CONFIG, "epochs": 3}, resume=True)


def test_resume_of_nothing_starts_anew(tmp_path):
    assert runs.create_run(tmp_path / "run", CONFIG, resume=True).config["epochs"] == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "not a run folder or only half of one"),
        ("{half", "not readable as JSON"),
        ('{"format": true}', "run-folder format True, this version reads 1"),
        ('{"format": 99}', "run-folder format 99, this version reads 1"),
        ("[]", r"run-folder format None"),
    ],
)
def test_a_folder_of_something_else_is_left_alone(tmp_path, content, message):
    (tmp_path / "mine.txt").write_text("keep")
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    for resume in (False, True):
        with pytest.raises(InputError, match=message):
            runs.create_run(tmp_path, CONFIG, resume=resume)
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_a_path_that_is_a_file_is_named(tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(InputError, match=f"cannot write the run folder {path}"):
        runs.create_run(path, CONFIG)
    with pytest.raises(InputError, match="no such run folder"):
        runs.open_run(path)


def test_settings_of_a_part_are_noted_and_checked(tmp_path):
    runs.require_settings(tmp_path, Settings(5, ("a",)), free=("layers",))
    runs.require_settings(tmp_path, Settings(5, ("b",)), free=("layers",))
    with pytest.raises(InputError, match="neighbors 5 -> 6"):
        runs.require_settings(tmp_path, Settings(6, ("a",)), free=("layers",))
    noted = runs.read_json(tmp_path / "settings.json")
    assert noted == {"format": 1, "neighbors": 5, "layers": ["a"]}
    runs.write_json(tmp_path / "settings.json", {"neighbors": 5, "layers": ["a"]})  # the first ones
    runs.require_settings(tmp_path, Settings(5, ("b",)), free=("layers",))
    for other in (2, True, "1", None):
        runs.write_json(tmp_path / "settings.json", {**noted, "format": other})
        with pytest.raises(InputError, match=f"format {other!r}, this version reads 1"):
            runs.require_settings(tmp_path, Settings(5, ("a",)), free=("layers",))


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    runs.write_json(path, {"old": 1})

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*results\.json"):
        runs.write_json(path, {"new": 2})
    assert json.loads(path.read_text()) == {"old": 1}


def test_lines_round_trip(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert runs.read_json_lines(path) == []
    records = [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": float("nan")}]
    runs.write_json_lines(path, records)
    assert runs.read_json_lines(path) == [records[0], {"epoch": 2, "loss": None}]


def test_a_second_process_is_kept_out(tmp_path):
    code = "import sys; from jnnk.runs.folder import locked\nwith locked(sys.argv[1]): pass"
    with runs.locked(tmp_path):
        other = subprocess.run(
            [sys.executable, "-P", "-c", code, str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
        )
    assert "is in use by another jnnk process" in other.stderr
    with runs.locked(tmp_path):
        pass


def test_a_run_from_before_a_setting_goes_on(tmp_path):
    config = TrainConfig()._asdict()
    old = {name: value for name, value in config.items() if name != "image_size"}
    runs.create_run(tmp_path, old)
    assert train_config(runs.create_run(tmp_path, config, resume=True)) == TrainConfig()
    with pytest.raises(InputError, match="image_size"):
        runs.create_run(tmp_path, {**config, "image_size": 8}, resume=True)
