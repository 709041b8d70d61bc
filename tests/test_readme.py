"""The README is short, its links lead somewhere, and its Python and that of the pages run."""

import pathlib
import re

import jax
import pytest

ROOT = pathlib.Path(__file__).parents[1]
README = ROOT / "README.md"
PROSE = [README, ROOT / "CONTRIBUTING.md", *(ROOT / "notebooks").rglob("*.md")]
PAGES = sorted((ROOT / "notebooks" / "pages").rglob("*.md"))


def python(path):
    return re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)


WITH_PYTHON = [README, *filter(python, PAGES)]


def test_it_fits_three_screens():
    assert len(README.read_text().splitlines()) <= 150


# MkDocs looks at the links of the pages themselves.
@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_to_files(name):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / name).read_text())
    missing = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert not missing


@pytest.mark.parametrize("path", PROSE, ids=lambda path: path.stem)
def test_files_of_ours_that_are_named_are_there(path):
    named = re.findall(r"`((?:jnnk|models|tests|notebooks)/[\w./-]+)", path.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.thorough
@pytest.mark.parametrize("path", WITH_PYTHON, ids=lambda path: path.stem)
def test_the_python_runs(path, capsys):
    program = compile("\n".join(python(path)), str(path), "exec")
    names = {"__name__": "readme"}
    exec(program, names)
    if path == README:
        sizes = [sum(leaf.size for leaf in jax.tree.leaves(names[name]))
                 for name in ("small_variables", "variables")]  # fmt: skip
        assert sizes[0] < sizes[1]
        assert "MACs" in capsys.readouterr().out


def test_each_own_network_takes_eight_lines_to_become_smaller():
    blocks = [block for block in python(README) if "as_function(n" in block]
    assert len(blocks) == 3 and all("jnnk.compact" in block for block in blocks)
    assert all(len(list(filter(None, block.splitlines()))) <= 8 for block in blocks)


def test_own_networks_and_overlap_in_the_loss_are_run():
    assert {path.stem for path in WITH_PYTHON} >= {"README", "network", "penalty"}
