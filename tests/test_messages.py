"""One grammar of errors: what is wrong with a value reads "name: expected this, got that"."""

import ast
import pathlib
import re

import pytest

import jnnk
from jnnk import models

ERRORS = {"ValueError", "TypeError", "InputError"}


def messages(source: str) -> list[str]:
    """The constant parts of the messages of all errors that a module raises, joined by ``{}``."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args):
            continue
        if node.func.id in ERRORS:
            text = node.args[0]
            parts = text.values if isinstance(text, ast.JoinedStr) else [text]
            found.append("".join(str(getattr(part, "value", "{}")) if isinstance(
                part, ast.Constant) else "{}" for part in parts))  # fmt: skip
    return found


def is_of_another_grammar(message: str) -> bool:
    """Whether a message says what a value must be, or what came without what was expected."""
    return bool(
        re.search(r"\bmust (be|have|name|lie)\b|; got\b", message)
        or (", got " in message and not re.search(r"(: |{})expected\b", message))
    )


def test_other_grammars_are_seen():
    source = 'raise ValueError(f"size must be {least}; " f"got {size}")'
    assert messages(source) == ["size must be {}; got {}"]
    assert is_of_another_grammar("size must be {}; got {}")
    assert is_of_another_grammar("{} takes {}, got {}")
    assert not is_of_another_grammar("{}: expected {}, got {}")


@pytest.mark.parametrize("package", [jnnk, models])
def test_errors_have_one_grammar(package):
    paths = sorted(pathlib.Path(package.__file__).parent.rglob("*.py"))
    found = [(path.name, message) for path in paths for message in messages(path.read_text())]
    assert found
    assert [each for each in found if is_of_another_grammar(each[1])] == []
