"""The accelerator script on small sizes, from a checkout that nobody installed."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.thorough

ROOT = pathlib.Path(__file__).parents[1]
SECTIONS = {"machine", "correctness", "solver", "neighbors", "criteria", "training", "latency"}


def run(checkout, *arguments):
    """The script with nothing of this process's Python path."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["JAX_PLATFORMS"] = "cpu"
    script = checkout / "tests/benchmarks/accelerator.py"
    return subprocess.run(
        [sys.executable, script, *arguments], env=environment, capture_output=True, text=True
    )


def test_every_section_measures_and_every_check_passes(tmp_path):
    for folder in ("jnnk", "models", "tests/benchmarks"):
        shutil.copytree(ROOT / folder, tmp_path / folder, symlinks=True)
    done = run(tmp_path, "--out", tmp_path / "found.json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert {row["section"] for row in found["rows"]} == SECTIONS - {"correctness"}
    assert len(found["checks"]) > 30 and all(check["passed"] for check in found["checks"])
    assert not found["failures"]


def test_a_section_that_is_not_there_is_named(tmp_path):
    done = run(ROOT, "solvers")
    assert done.returncode == 2 and "solvers" in done.stderr and "latency" in done.stderr
