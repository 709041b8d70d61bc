"""What the command line's numbers may be: a table of types for argparse."""

import argparse
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

MOST = 2**31 - 1
"""Largest whole number: steps are counted in int32."""
SEEDS = 2**32
"""Seeds are below: PRNG keys are made of 32 bits."""

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


def _whole(least: int, most: int = MOST) -> Number:
    def is_meant(value: float) -> bool:
        return least <= value <= most

    return Number(f"a whole number from {least} to {most}", int, is_meant)


def _real(what: str, is_meant: Callable[[float], bool]) -> Number:
    """A number that is meant as it is computed with, in float32."""

    def is_meant_in_float32(value: float) -> bool:
        with np.errstate(over="ignore"):
            value = float(np.float32(value))
        return math.isfinite(value) and is_meant(value)

    return Number(what, float, is_meant_in_float32)


COUNT = _whole(0)
POSITIVE = _whole(1)
SEVERAL = _whole(2)
SEED = _whole(0, SEEDS - 1)
FINITE = _real("a finite number", lambda value: True)
NOT_NEGATIVE = _real("a finite number of 0 or more", lambda value: value >= 0)
ABOVE_ZERO = _real("a finite number above 0", lambda value: value > 0)
SHARE = _real("a number of 0 or more and below 1", lambda value: 0 <= value < 1)
