"""Every public name: documented with its arguments and result, options by keyword alone."""

import dataclasses
import importlib
import inspect
import pkgutil
import re

import pytest

import jnnk
from jnnk import models

MODULES = sorted(
    {
        info.name
        for package in (jnnk, models)
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    }
    | {"jnnk.models"}
)
# The one argument that is the function's whole point and has a default all the same; and what
# Flax calls by position, or Python where it decorates.
POSITIONAL = {
    "as_function": "variables", "gaussian": "bandwidth", "he_normal": "dtype", "jit": "function",
    "main": "argv",
}  # fmt: skip


def public_functions():
    for name in MODULES:
        module = importlib.import_module(name)
        for attribute, value in vars(module).items():
            function = inspect.unwrap(value) if callable(value) else None
            if attribute.startswith("_") or not inspect.isfunction(function):
                continue
            if function.__module__ == name:
                yield pytest.param(function, id=f"{name}.{attribute}")


FUNCTIONS = list(public_functions())


def test_the_walk_finds_them():
    names = {parameter.id for parameter in FUNCTIONS}
    assert {
        "jnnk.graphs._qp.solve.solve_nnk",
        "jnnk.models.create",
        "jnnk.jobs.train.train",
    } <= names


def test_the_promised_names_are_there():
    for name in jnnk.__all__:
        assert callable(getattr(jnnk, name))
    assert list(jnnk.__all__) == sorted(jnnk.__all__)
    assert callable(jnnk.graphs.gaussian) and callable(jnnk.models.create)
    with pytest.raises(AttributeError, match="no attribute 'no_such_module'"):
        jnnk.no_such_module  # noqa: B018


@pytest.mark.parametrize("function", FUNCTIONS)
def test_options_are_keyword_only(function):
    positional = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        and parameter.default is not parameter.empty
    ]
    assert [parameter.name for parameter in positional] in ([], [POSITIONAL.get(function.__name__)])


@pytest.mark.parametrize("function", FUNCTIONS)
def test_docstring_names_every_argument(function):
    text = inspect.getdoc(function)
    assert text
    parameters = [
        name for name in inspect.signature(function).parameters if not name.startswith("_")
    ]
    # One line is enough where one sentence says it all; else every argument has its line.
    if "\n" in text and "Args:" in text:
        missing = [name for name in parameters if f"{name}:" not in text and f"{name}," not in text]
        assert missing == []


def comments(value) -> str:
    """The comments in a class, and the names of the fields that they stand beside or above."""
    found = re.findall(
        r"^ +(?:# .*\n(?: +# .*\n)* +\w+:|\w+: .*# .*)", inspect.getsource(value), re.M
    )
    return "\n".join(found)


def test_fields_of_results_and_records_are_described():
    """In the docstring, or by a comment beside or above the field."""
    for name in MODULES:
        for value in vars(importlib.import_module(name)).values():
            if not inspect.isclass(value) or value.__module__ != name:
                continue
            fields = getattr(value, "_fields", ())
            if dataclasses.is_dataclass(value):
                fields = [field.name for field in dataclasses.fields(value)]
            text = (inspect.getdoc(value) or "") + comments(value)
            # Flax gives every module these two.
            missing = [
                name for name in fields if name not in text and name not in ("name", "parent")
            ]
            is_elsewhere = "; see `" in text
            assert value.__name__.startswith("_") or is_elsewhere or missing == [], value
