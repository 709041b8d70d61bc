"""The reference is built from the docstrings without a warning, and their examples run."""

import doctest
import importlib
import inspect
import os
import pathlib
import pkgutil
import shutil
import subprocess
import sys

import pytest

import jnnk
from jnnk import models

pytestmark = pytest.mark.quick_compile

CONFIG = pathlib.Path(__file__).parents[1] / "notebooks" / "api" / "mkdocs.yml"
#: What a newcomer calls first: each has an example.
SHOWN = {
    "nearest_neighbors", "solve_nnk", "nnk_graph", "channelwise_nnk_graph", "channel_overlap",
    "overlap_penalty", "kernel_scores", "make_masks", "apply_masks", "NNKTransformer",
    "NNKClassifier",
}  # fmt: skip


def examples():
    """The docstrings with examples, of functions and classes where they are defined."""
    for info in pkgutil.iter_modules(jnnk.__path__, "jnnk."):
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            own = getattr(value, "__module__", None) == info.name
            text = inspect.getdoc(value) if own and not name.startswith("_") else None
            if text and ">>>" in text:
                yield pytest.param(text, vars(module), id=name)


EXAMPLES = list(examples())


def test_what_comes_first_has_an_example():
    assert {parameter.id for parameter in EXAMPLES} >= SHOWN


@pytest.mark.parametrize(("text", "names"), EXAMPLES)
def test_examples_run(text, names):
    parsed = doctest.DocTestParser().get_doctest(text, dict(names), "example", None, 0)
    said = []
    result = doctest.DocTestRunner().run(parsed, out=said.append)
    assert result.attempted > 0 and result.failed == 0, "".join(said)


@pytest.mark.thorough
def test_the_reference_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install '.[docs]'")
    # As installed: mkdocstrings reads sources, and those of an editable install lie in two places.
    package = tmp_path / "installed" / "jnnk"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(jnnk.__path__[0], package, ignore=ignore)
    shutil.copytree(models.__path__[0], package / "models", ignore=ignore, dirs_exist_ok=True)
    command = [sys.executable, "-P", "-m", "mkdocs", "build", "--strict", "--quiet"]
    done = subprocess.run(
        [*command, "-f", str(CONFIG), "-d", str(tmp_path / "site")],
        env={**os.environ, "PYTHONPATH": str(package.parent), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    pages = "".join(path.read_text() for path in (tmp_path / "site").glob("*.html"))
    for name in jnnk.__all__:
        value = inspect.unwrap(getattr(jnnk, name))
        anchor = f'id="{value.__module__}.{value.__qualname__}"'
        assert anchor in pages, anchor
    assert 'id="jnnk.models.create"' in pages
    assert "https://fonts." not in pages
