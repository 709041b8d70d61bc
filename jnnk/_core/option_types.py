"""What the numbers of a command's settings may be: a table of types, for argparse and for files."""

import argparse
import math
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jnnk._core.errors import InputError

MOST = 2**31 - 1
"""Largest whole number: steps are counted in int32."""
SEEDS = 2**32
"""Seeds are below: PRNG keys are made of 32 bits."""
LARGEST_SIDE = 2**14
"""Largest side of resized images, in pixels."""

_SHOWN = 40  # characters of what was given


class Number(NamedTuple):
    """The type of an option, as ``add_argument`` takes it.

    Attributes:
        what: what is expected, in words.
        read: makes a number of a text; raises ValueError where it is none.
        is_meant: whether the number has a meaning.
    """

    what: str
    read: Callable[[str], int | float]
    is_meant: Callable[[int | float], bool]

    def __call__(self, text: str) -> int | float:
        """The number that a text names.

        Raises:
            argparse.ArgumentTypeError: saying what was expected and what came.
        """
        try:
            value = self.read(text)
        except ValueError:
            value = None
        if value is None or not self.is_meant(value):
            shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
            raise argparse.ArgumentTypeError(f"expected {self.what}, got {shown!r}")
        return value

    def holds(self, value: Any) -> bool:
        """Whether a value that was not typed is a number with a meaning."""
        kinds = (int, np.integer) if self.read is int else (int, float)
        try:
            return _is_number(value, kinds) and self.is_meant(value)
        except OverflowError:
            return False


def _is_number(value: object, kinds: tuple[type, ...]) -> bool:
    """Whether it is of one of the kinds; a truth value is none."""
    return isinstance(value, kinds) and not isinstance(value, bool)


def _whole(least: int, most: int = MOST) -> Number:
    def is_meant(value: float) -> bool:
        return least <= value <= most

    return Number(f"a whole number from {least} to {most}", int, is_meant)


def _real(what: str, is_meant: Callable[[float], bool]) -> Number:
    """A number that is meant as it is computed with: in float32, where tiny ones count as 0."""

    def is_meant_in_float32(value: float) -> bool:
        with np.errstate(over="ignore"):
            value = float(np.float32(value))
        if abs(value) < np.finfo(np.float32).tiny:
            value = 0.0
        return math.isfinite(value) and is_meant(value)

    return Number(what, float, is_meant_in_float32)


_COUNT = _whole(0)
_POSITIVE = _whole(1)
_SEED = _whole(0, SEEDS - 1)
_FINITE = _real("a finite number", lambda value: True)
_NOT_NEGATIVE = _real("a finite number of 0 or more", lambda value: value >= 0)
_SHARE = _real("a number of 0 or more and below 1", lambda value: 0 <= value < 1)

NUMBERS: dict[str, Number] = {
    "epochs": _COUNT,
    "batch_size": _POSITIVE,
    "learning_rate": _NOT_NEGATIVE,
    "weight_decay": _NOT_NEGATIVE,
    "l1": _NOT_NEGATIVE,
    "regularizer_strength": _FINITE,  # negative rewards
    "patience": _POSITIVE,
    "seed": _SEED,
    "measure_epochs": _COUNT,
    "mean": _FINITE,
    "std": _real("a finite number above 0", lambda value: value > 0),
    "image_size": _whole(1, LARGEST_SIDE),
    "images": _whole(2),
    "neighbors": _POSITIVE,
    "at_epochs": _COUNT,
    "round_to": _POSITIVE,
    "share": _SHARE,
    "shares": _SHARE,
    "tolerance": _NOT_NEGATIVE,
    "sweep_images": _POSITIVE,
    "finetune_epochs": _COUNT,
    "finetune_learning_rate": _NOT_NEGATIVE,
    "seeds": _SEED,
}
"""Name of a setting -> what it, or each of its values, may be."""


def check_numbers(config: Any, path: pathlib.Path) -> None:
    """Refuses settings of a file whose numbers have no meaning.

    Args:
        config: NamedTuple of the settings; those without a default value may be None.
        path: of the file.

    Raises:
        InputError: naming the file, the setting, what was expected and what came.
    """
    for name in config._fields:
        value = getattr(config, name)
        if name not in NUMBERS or (value is None and config._field_defaults[name] is None):
            continue
        for each in value if isinstance(value, tuple) else (value,):
            if not NUMBERS[name].holds(each):
                raise InputError(f"{path}: {name}: expected {NUMBERS[name].what}, got {each!r}")
