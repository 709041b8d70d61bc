"""Which module may import which: jnnk and models apart, the pipeline one way, one printer."""

import ast
import functools
import itertools
import pathlib

import pytest

import jnnk
from jnnk import models

# Each stage may import the stages before it, and nothing of its own or a later one.
PIPELINES = {
    "NNK": [
        {"similarity", "qp", "ring"},
        {"shortlists"},
        {"second_pass"},
        {"ranking"},
        {"passes"},
        {"neighbors"},
        {"graph"},
        {"channels"},
        {"overlap", "dimension", "generalization", "sharding"},
    ],
    "pruning": [{"conv_scores"}, {"masks"}, {"training"}],
}
# What knows of run folders and commands.
OUTER = ("jnnk.cli", "jnnk.cli", "jnnk.cli", "jnnk.jobs")
ROOTS = {
    "jnnk": pathlib.Path(jnnk.__file__).parent,
    "jnnk.models": pathlib.Path(models.__file__).parent,
}


def module_name(package: str, path: pathlib.Path) -> str:
    parts = path.relative_to(ROOTS[package]).with_suffix("").parts
    return ".".join([package, *(part for part in parts if part != "__init__")])


@functools.cache
def trees() -> dict[str, ast.Module]:
    """The parsed source of every module, by its full name."""
    found = {}
    for package, root in ROOTS.items():
        for path in sorted(root.rglob("*.py")):
            name = module_name(package, path)
            # Installed, the models lie inside jnnk: the second root names them alike.
            found[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return found


def imported(name: str, tree: ast.Module) -> set[str]:
    """Full names of our modules that a module imports, at its top or inside a function."""
    modules = set(trees())
    package = name if is_package(name) else name.rpartition(".")[0]
    targets = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1]
            start = ".".join(base) if node.level else ""
            source = ".".join(part for part in (start, node.module) if part)
            # "from jnnk import data" imports a module, "from jnnk.data import load" a name of one.
            targets |= {
                f"{source}.{alias.name}" if f"{source}.{alias.name}" in modules else source
                for alias in node.names
            }
    return {target for target in targets if target.split(".")[0] in ("jnnk", "models")} - {name}


def is_package(name: str) -> bool:
    return any(other.startswith(name + ".") for other in trees())


@functools.cache
def graph() -> dict[str, set[str]]:
    return {name: imported(name, tree) for name, tree in trees().items()}


def reachable(name: str) -> set[str]:
    found, todo = set(), [name]
    while todo:
        new = graph().get(todo.pop(), set()) - found
        found |= new
        todo.extend(new)
    return found


def is_model(name: str) -> bool:
    return name.split(".")[0] == "models" or name.split(".")[:2] == ["jnnk", "models"]


def test_the_reader_of_imports_sees_them():
    """The tests below say nothing if this one fails."""
    assert {"jnnk._core.errors", "jnnk.data"} <= graph()["jnnk.data"]
    assert "jnnk.models.resnet" in graph()["jnnk.models"]
    assert "jnnk.models" in graph()["jnnk.cli"]


def test_only_the_command_line_imports_the_models():
    users = {name for name, targets in graph().items() if any(map(is_model, targets))}
    assert {name for name in users if not is_model(name)} == {"jnnk.cli"}


def test_models_import_nothing_of_jnnk():
    for name in filter(is_model, graph()):
        assert all(map(is_model, graph()[name])), name


def test_no_import_cycle():
    assert [name for name in graph() if name in reachable(name)] == []


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_the_pipeline_goes_one_way(pipeline):
    stages = [{f"jnnk.{name}" for name in stage} for stage in PIPELINES[pipeline]]
    for index, stage in enumerate(stages):
        assert stage <= set(trees())
        not_before = set(itertools.chain(*stages[index:]))
        for name in stage:
            assert not reachable(name) & not_before, name


def test_the_library_knows_nothing_of_jobs_and_commands():
    outer = {name for name in trees() if name.startswith(OUTER)}
    assert outer
    for name in set(trees()) - outer:
        assert not graph()[name] & outer, name
    assert not any("jnnk.cli" in graph()[name] for name in outer)


def calls(tree: ast.Module) -> set[str]:
    """The names of functions and classes that a module calls by their bare name."""
    return {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }


def test_only_the_command_line_prints():
    """It makes the consoles; the terminal's module prints on those it is given."""
    assert [name for name, tree in trees().items() if "print" in calls(tree)] == []
    assert [name for name, tree in trees().items() if "Console" in calls(tree)] == ["jnnk.cli"]
    of_rich = {
        name
        for name, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for module in ([node.module or ""] if isinstance(node, ast.ImportFrom) else
                       [alias.name for alias in node.names])
        if module.split(".")[0] == "rich"
    }  # fmt: skip
    assert of_rich == {"jnnk.cli"}
    assert {name for name in graph() if "jnnk.cli" in graph()[name]} == {"jnnk.cli"}
