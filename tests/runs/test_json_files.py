import json
import os
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from jnnk.runs import json_files


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
    assert json_files.to_json(value) == {
        "a": 1.5,
        "b": [1.0, None],
        "c": {"neighbors": 3, "layers": ["x"]},
        "4": None,
    }


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    json_files.write_json(path, {"old": 1})

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*results\.json"):
        json_files.write_json(path, {"new": 2})
    assert json.loads(path.read_text()) == {"old": 1}


def test_lines_round_trip(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert json_files.read_json_lines(path) == []
    records = [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": float("nan")}]
    json_files.write_json_lines(path, records)
    assert json_files.read_json_lines(path) == [records[0], {"epoch": 2, "loss": None}]
