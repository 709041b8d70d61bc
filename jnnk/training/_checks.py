"""What numbers and normalisations training refuses."""

import math

import numpy as np
from jax.core import Tracer

from jnnk.data import Normalization


def check_not_negative(**numbers: float) -> None:
    """Refuses what is negative or not finite; traced numbers pass.

    Args:
        numbers: by the names that an error calls them.

    Raises:
        ValueError: naming the first that is.
    """
    for name, value in numbers.items():
        if not isinstance(value, Tracer) and not 0 <= value < math.inf:
            raise ValueError(f"{name}: expected a finite number of 0 or more, got {value}")


def check_normalization(normalization: Normalization) -> None:
    """Refuses what images cannot be normalised with; traced numbers pass.

    Args:
        normalization: mean and deviation by channel.

    Raises:
        ValueError: if a mean is not finite, or a deviation not finite and above 0.
    """
    if any(isinstance(values, Tracer) for values in normalization):
        return
    mean, std = (np.asarray(values) for values in normalization)
    if not np.isfinite(mean).all():
        raise ValueError(f"normalization.mean: expected numbers that are finite, got {mean}")
    if not (np.isfinite(std) & (std > 0)).all():
        raise ValueError(
            f"normalization.std: expected numbers that are finite and above 0, got {std}"
        )
