"""What the wheel holds: one top-level package, with the models, the typing mark and the command."""

import configparser
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy: a build folder left in the tree must not leak into it."""
    source = tmp_path_factory.mktemp("source")
    for folder in ("jnnk", "models"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, source / folder, symlinks=True, ignore=ignored)
    for file in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / file, source)
    # The source archive first, and the wheel from that: both must be whole.
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir"]
    out = tmp_path_factory.mktemp("wheel")
    built = subprocess.run([*command, str(out), str(source)], capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    (file,) = out.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        yield archive


def test_the_only_top_level_package_is_jnnk(wheel):
    top = {name.split("/")[0] for name in wheel.namelist()}
    (info,) = (name for name in top if name.endswith(".dist-info"))
    assert top == {"jnnk", info}
    assert wheel.read(f"{info}/top_level.txt").split() == [b"jnnk"]


def test_every_module_is_in_the_wheel(wheel):
    packed = {name for name in wheel.namelist() if name.endswith(".py")}
    expected = {str(path.relative_to(ROOT)) for path in ROOT.glob("jnnk/**/*.py")}
    expected |= {f"jnnk/{path.relative_to(ROOT)}" for path in ROOT.glob("models/**/*.py")}
    assert "jnnk/models/__init__.py" in packed
    assert packed == expected
    assert {"jnnk/report/report.css", "jnnk/report/report.js"} <= set(wheel.namelist())


def test_typing_mark_and_console_script(wheel):
    assert "jnnk/py.typed" in wheel.namelist()
    (file,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    scripts = configparser.ConfigParser()
    scripts.read_string(wheel.read(file).decode())
    assert dict(scripts["console_scripts"]) == {"jnnk": "jnnk.cli:main"}
