"""Which package may import which: one order, jnnk and models apart, one printer."""

import ast
import functools
import importlib
import os
import pathlib
import subprocess
import sys

import pytest

import jnnk
from jnnk import models

#: Each may import those before it. Between `jobs` and `cli`, the studies of `jnnk reproduce`.
PACKAGES = (
    "_core", "files", "parallel", "graphs", "network", "measures", "penalties", "pruning",
    "data", "training", "runs", "report", "jobs", "experiments", "cli",
)  # fmt: skip
#: What users call, of arrays and networks.
LIBRARY = PACKAGES[2:10]
#: The checkout that holds these tests.
ROOT = pathlib.Path(__file__).parents[1]
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
    expected = {"jnnk._core.errors", "jnnk.data._tiny_imagenet", "jnnk.data._tfds_sets"}
    assert expected <= graph()["jnnk.data._sets"]
    assert "jnnk.models.resnet" in graph()["jnnk.models"]
    assert "jnnk.models" in graph()["jnnk.cli.networks"]


def test_only_the_command_line_imports_the_models():
    users = {name for name, targets in graph().items() if any(map(is_model, targets))}
    assert {name for name in users if not is_model(name)} == {"jnnk.cli.networks"}


def test_models_import_nothing_of_jnnk():
    for name in filter(is_model, graph()):
        assert all(map(is_model, graph()[name])), name


def test_no_import_cycle():
    assert [name for name in graph() if name in reachable(name)] == []


def test_packages_import_those_before_them():
    folders = {path.name for path in ROOTS["jnnk"].iterdir() if (path / "__init__.py").exists()}
    assert folders == {*PACKAGES, "models"}
    for name, targets in graph().items():
        package = name.split(".")[1] if name.count(".") else None
        if package in PACKAGES:
            before = PACKAGES[: PACKAGES.index(package) + 1]
            others = {target.split(".")[1] for target in targets if not is_model(target)}
            assert others <= set(before), name


def test_estimators_know_the_library_alone():
    packages = {target.split(".")[1] for target in graph()["jnnk.sklearn"]}
    assert packages <= {"_core", *LIBRARY}


@pytest.mark.parametrize("package", LIBRARY)
def test_what_is_public_is_named(package):
    """What has no underscore before it is in ``__all__``, which ruff sorts."""
    module = importlib.import_module(f"jnnk.{package}")
    assert len(module.__all__) > 4
    assert {name for name in vars(module) if not name.startswith("_")} == set(module.__all__)


def test_the_short_names_and_the_packages_are_what_one_sees():
    assert dir(jnnk) == sorted([*jnnk.__all__, *LIBRARY, "models", "sklearn"])
    for name in dir(jnnk):
        assert getattr(jnnk, name) is not None


def test_importing_takes_no_time():
    """Nothing is loaded before it is used, and for the library nothing that commands need."""
    program = """
import sys, jnnk
for name in ("jax", "flax", "scipy", "sklearn", "matplotlib", "rich", "orbax", "plotly", "PIL",
             "tensorflow_datasets", "jnnk.graphs"):
    assert name not in sys.modules, name
jnnk.nnk_graph
for name in ("sklearn", "matplotlib", "rich", "orbax", "plotly", "PIL", "tensorflow_datasets"):
    assert name not in sys.modules, name
"""
    subprocess.run([sys.executable, "-P", "-c", program], check=True)
    timed = "import time; t = time.perf_counter(); import jnnk; print(time.perf_counter() - t)"
    runs = [subprocess.run([sys.executable, "-P", "-c", timed], check=True, capture_output=True)
            for _ in range(3)]  # fmt: skip
    assert min(float(run.stdout) for run in runs) < 1


def test_the_checkout_imports_itself():
    program = "import jnnk, jnnk.models; print(jnnk.__file__)"
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True,
                           capture_output=True, text=True, env=without_path())  # fmt: skip
    assert pathlib.Path(found.stdout.strip()) == ROOT / "jnnk" / "__init__.py"


def without_path() -> dict[str, str]:
    """The environment without a path of Python's, which the tests may be run with."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


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
    makers = [name for name, tree in trees().items() if "Console" in calls(tree)]
    assert makers == ["jnnk.cli.program"]
    of_rich = {
        name
        for name, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for module in ([node.module or ""] if isinstance(node, ast.ImportFrom) else
                       [alias.name for alias in node.names])
        if module.split(".")[0] == "rich"
    }  # fmt: skip
    assert of_rich == {"jnnk.cli.program", "jnnk.cli.terminal"}
    users = {name for name in graph() if "jnnk.cli.terminal" in graph()[name]}
    assert users == {"jnnk.cli.program"}
