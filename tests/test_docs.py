"""The documentation is built without a warning, and the docstrings' examples run."""

import doctest
import importlib
import inspect
import os
import pathlib
import pkgutil
import re
import shutil
import subprocess
import sys

import pytest

import jnnk

ROOT = pathlib.Path(__file__).parents[1]
#: What a newcomer calls first: each has an example.
SHOWN = {
    "nearest_neighbors", "solve_nnk", "nnk_graph", "channelwise_nnk_graph", "channel_overlap",
    "overlap_penalty", "kernel_scores", "make_masks", "apply_masks", "NNKTransformer",
    "NNKClassifier",
}  # fmt: skip


def examples():
    """The docstrings with examples, of functions and classes where they are defined."""
    for info in pkgutil.walk_packages(jnnk.__path__, "jnnk."):
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            own = getattr(value, "__module__", None) == info.name
            text = inspect.getdoc(value) if own and not name.startswith("_") else None
            if text and ">>>" in text:
                yield pytest.param(text, vars(module), id=name)


EXAMPLES = list(examples())


def test_what_comes_first_has_an_example():
    assert {parameter.id for parameter in EXAMPLES} >= SHOWN


@pytest.mark.thorough
@pytest.mark.parametrize(("text", "names"), EXAMPLES)
def test_examples_run(text, names):
    parsed = doctest.DocTestParser().get_doctest(text, dict(names), "example", None, 0)
    said = []
    result = doctest.DocTestRunner().run(parsed, out=said.append)
    assert result.attempted > 0 and result.failed == 0, "".join(said)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages of the built site, HTML by address."""
    for module in ("mkdocs", "latex2mathml"):
        pytest.importorskip(module, reason=f"{module} is not installed: pip install '.[docs]'")
    # As installed: mkdocstrings reads sources, and those of an editable install lie in two places.
    folder = tmp_path_factory.mktemp("docs")
    package = folder / "installed" / "jnnk"
    shutil.copytree(jnnk.__path__[0], package, ignore=shutil.ignore_patterns("__pycache__"))
    # Not --quiet, with which MkDocs does not count warnings.
    command = [sys.executable, "-P", "-m", "mkdocs", "build", "--strict"]
    done = subprocess.run(
        [*command, "-f", str(ROOT / "mkdocs.yml"), "-d", str(folder / "site")],
        env={**os.environ, "PYTHONPATH": str(package.parent), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    pages = (folder / "site").rglob("*.html")
    return {str(page.relative_to(folder / "site")): page.read_text() for page in pages}


@pytest.mark.thorough
def test_every_public_name_is_in_the_reference(site):
    reference = "".join(text for page, text in site.items() if page.startswith("api/"))
    for name in jnnk.__all__:
        assert re.search(rf'id="jnnk\.(\w+\.)?{name}"', reference), name
    assert 'id="jnnk.models.create"' in reference


@pytest.mark.thorough
def test_pages_and_notebooks_are_in_the_site(site):
    sources = ROOT / "notebooks"
    for path in [*sources.rglob("*.md"), *sources.glob("*.ipynb")]:
        assert str(path.relative_to(sources).with_suffix(".html")) in site
    assert "02_nnk_in_two_dimensions_1.png" in site["02_nnk_in_two_dimensions.html"]


@pytest.mark.thorough
def test_formulas_and_pages_need_no_network(site):
    fetched = re.compile(
        r"<(?:script|img|link|iframe|source)\b[^>]*\b(?:src|href)=\"https?://[^>]*"
    )
    for page, text in site.items():
        assert not fetched.findall(text), page
        assert 'class="arithmatex"' not in text, page
    assert "<math" in site["pages/concepts/nnk.html"]
