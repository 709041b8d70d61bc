"""What comes from JSON is of the form that an annotation names, or the error names the place."""

import dataclasses
from typing import Any, ClassVar, Literal, NamedTuple

import pytest

from jnnk.files.schema import BESIDE, OPTIONAL, as_object, conform


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    x: float
    name: str = "origin"


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
        ({"x": 1, "more": []}, Point, Point(x=1)),
        ({"sizes": [2], "kind": 1, "point": {"x": 0.5}}, Config, Config((2,), 1, Point(x=0.5))),
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spread:
    mean: float
    std: float | None

    SUFFIXES: ClassVar = {"mean": "", "std": "_std"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    macs: int
    seconds: float = 0.0

    def __post_init__(self):
        if self.macs < 0:
            raise ValueError("macs: expected 0 or more")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    name: str
    accuracy: Spread
    cost: Cost = dataclasses.field(metadata=BESIDE)
    shares: dict[str, float] = dataclasses.field(metadata=BESIDE)
    note: str | None = dataclasses.field(default=None, metadata=OPTIONAL)

    @staticmethod
    def nest(value):
        return {**value, "shares": {key: value[key] for key in ("det",) if key in value}}


CASE = {"name": "a", "accuracy": 0.5, "accuracy_std": None, "macs": 3, "seconds": 1.0, "det": 0.25}


def test_a_record_is_its_entries():
    record = conform({**CASE, "newer": 1}, Case)
    assert record == Case(
        name="a", accuracy=Spread(mean=0.5, std=None), cost=Cost(macs=3, seconds=1.0),
        shares={"det": 0.25},
    )  # fmt: skip
    assert list(as_object(record).items()) == list(CASE.items())
    assert as_object(dataclasses.replace(record, note="n"))["note"] == "n"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accuracy_std": "x"}, r"cases\[0\].accuracy_std: expected"),
        ({"macs": "x"}, r"cases\[0\].macs: expected a whole number, got 'x'"),
        ({"macs": -1}, r"cases\[0\]: macs: expected 0 or more"),
        ({"det": None}, r"cases\[0\].shares.det: expected a number, got None"),
        ({"note": 1}, r"cases\[0\].note: expected"),
    ],
)
def test_what_is_wrong_in_a_record_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        conform({"cases": [{**CASE, **changes}]}, dict[str, list[Case]])


def test_what_a_record_lacks_is_named():
    for key in ("name", "accuracy", "accuracy_std", "macs"):
        with pytest.raises(ValueError, match=f"^{key} missing"):
            conform({k: v for k, v in CASE.items() if k != key}, Case)
