"""What comes from JSON is of the form that an annotation names, or the error names the place."""

from typing import Any, Literal, NamedTuple, NotRequired, TypedDict

import pytest

from jnnk.files.schema import conform


class Point(TypedDict):
    x: float
    name: NotRequired[str]


class Config(NamedTuple):
    sizes: tuple[int, ...]
    kind: Literal["a", 1]
    point: Point | None = None


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (3, float, 3),
        (None, int | None, None),
        ([1, 2], tuple[int, ...], (1, 2)),
        ([], tuple[int, ...], ()),
        ([1, "a"], tuple[int, str], (1, "a")),
        ({"a": [1.5]}, dict[str, list[float]], {"a": [1.5]}),
        ({"x": 1, "more": []}, Point, {"x": 1, "more": []}),
        ({"sizes": [2], "kind": 1, "point": {"x": 0.5}}, Config, Config((2,), 1, {"x": 0.5})),
        ([{}], Any, [{}]),
    ],
)
def test_what_fits(value, kind, expected):
    found = conform(value, kind)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (True, int, "expected a whole number, got True"),
        (1.0, int, "expected a whole number, got 1.0"),
        (True, float, "expected a number, got True"),
        ("1", float, "expected a number, got '1'"),
        (1, bool, "expected true or false, got 1"),
        (None, str, "expected a text, got None"),
        (True, Literal["a", 1], "expected 'a' or 1, got True"),
        ([1], tuple[int, str], "expected 2 values, got 1"),
        ({"a": [1, None]}, dict[str, list[float]], r"a\[1\]: expected a number, got None"),
        ([], Point, "expected an object, got a list"),
        ({"name": "p"}, Point, "x missing"),
        ({"x": 1, "name": 2}, Point, "name: expected a text, got 2"),
        ({"sizes": [1], "kind": "a"}, Config, "point missing"),
        ({"sizes": [1], "kind": "a", "point": {"x": "y"}}, Config, r"point\.x: expected a number"),
    ],
)
def test_what_does_not_fit_is_named(value, kind, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        conform(value, kind)
