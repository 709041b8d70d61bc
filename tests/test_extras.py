"""The library without the packages of the extras, and commands that say which one is missing."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from jnnk.cli.program import STUDY

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: What is imported by another name than it is installed by.
IMPORTED_AS = {
    "orbax-checkpoint": "orbax",
    "scikit-learn": "sklearn",
    "tensorflow-datasets": "tensorflow_datasets",
    "pillow": "PIL",
}
WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        # Flax brings these two, and needs them.
        if name.partition(".")[0] in {missing} - {{"rich", "orbax"}}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name in {missing} else found(name)
"""


def run(program, **environment):
    """A program that finds nothing of the extra."""
    start = WITHOUT.format(missing=set(STUDY))
    return subprocess.run(
        [sys.executable, "-P", "-c", start + program],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def test_the_extra_is_what_the_commands_ask_for():
    names = (re.split(r"[><=]", each)[0] for each in PYPROJECT["optional-dependencies"]["study"])
    # Read by TFDS, and not by us.
    assert {IMPORTED_AS.get(name, name) for name in names} == {*STUDY, "importlib_resources"}


def test_the_library_needs_none_of_it():
    done = run("import jnnk\nfor name in set(dir(jnnk)) - {'sklearn'}:\n    getattr(jnnk, name)")
    assert done.returncode == 0, done.stderr


@pytest.mark.thorough
@pytest.mark.parametrize("command", ["train", "report RUN"])
def test_a_command_says_what_is_missing(command, tmp_path):
    words = ["jnnk", *command.replace("RUN", str(tmp_path)).split()]
    out = tmp_path / "out"
    words += [] if "report" in command else ["--out", str(out)]
    done = run(f"from jnnk.cli import main\nimport sys\nsys.exit(main({words[1:]}))")
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and "matplotlib" in line
    assert line.endswith("not installed: pip install 'jnnk[study]'")
    assert not out.exists()


def test_help_comes_without_it():
    done = run("from jnnk.cli import main\nmain(['--help'])")
    assert done.returncode == 0 and "exit codes" in done.stdout


def test_a_data_set_says_what_is_missing(tmp_path):
    done = run("import jnnk\nfrom jnnk.data import load\nload('digits')")
    assert "InputError: sklearn is not installed: pip install 'jnnk[study]'" in done.stderr


def test_the_oldest_versions_are_those_that_are_promised():
    """`make test-oldest` installs the lower bounds."""
    lowest = dict(
        re.match(r"([\w-]+)>=([\d.]+)", each).groups() for each in PYPROJECT["dependencies"]
    )
    lines = (ROOT / "tests" / "oldest.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    for name, version in lowest.items():
        assert pinned[name].startswith(version), name
