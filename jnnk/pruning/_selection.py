"""Selections as values: by a threshold, by the contribution to a filter, by a keep-rate.

A selection says which kernels or filters of a network stay, whatever their scores are.
"""

import dataclasses
import fractions
import math
import numbers

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jnnk._core import typed_jax

_SCOPES = ("filter", "layer", "network")


@dataclasses.dataclass(frozen=True)
class Threshold:
    """Selection of the kernels whose score reaches a threshold.

    The threshold is in the unit of the weights: with n x n kernels ``det`` is compared with
    ``threshold ** n`` and ``det_gram`` with ``threshold ** 2n``.

    Attributes:
        threshold: scalar, finite and not negative; it may be traced.

    Raises:
        ValueError: if it is something else.
    """

    threshold: float | jax.Array

    def __post_init__(self) -> None:
        value = self.threshold
        if not _is_traced(value) and not (_is_number(value) and 0 <= value < math.inf):
            raise ValueError(f"threshold: expected a finite number of 0 or more, got {value!r}")

    @property
    def adds_scores(self) -> bool:
        """Whether scores are summed over a filter, and so taken raw."""
        return False


@dataclasses.dataclass(frozen=True)
class Contribution:
    """Selection of the kernels that hold at least a share of their filter's summed score.

    Attributes:
        contribution: the share, a scalar in [0, 1]; it may be traced.
        exact: False keeps a kernel that misses the share by rounding alone, such as each of ten
            equal ones at 0.1. True prunes it, as the authors' masks do.

    Raises:
        ValueError: if the share is something else.
    """

    contribution: float | jax.Array
    exact: bool = False

    def __post_init__(self) -> None:
        if not _is_traced(self.contribution):
            check_share("contribution", self.contribution)

    @property
    def adds_scores(self) -> bool:
        """Whether scores are summed over a filter, and so taken raw."""
        return True


@dataclasses.dataclass(frozen=True)
class KeepRate:
    """Selection of a share of the kernels, or of the filters, by rank.

    The number pruned is rounded down, exactly (`num_pruned`). The share is of all kernels in the
    scope, those that an earlier mask pruned included, so schedules compose with earlier masks
    without compounding.

    Attributes:
        keep_rate: the share kept, a number in [0, 1].
        scope: ``"filter"``, ``"layer"`` or ``"network"``: within what kernels are ranked.
        whole_filters: rank and keep whole filters, by the sum of their kernels' scores, within each
            layer or the network.

    Raises:
        ValueError: if ``keep_rate`` is no share or traced, the scope is unknown, or whole filters
            are to be ranked within a filter.
    """

    keep_rate: float
    scope: str = "network"
    whole_filters: bool = False

    def __post_init__(self) -> None:
        _check_keep_rate(self.keep_rate)
        if self.scope not in _SCOPES:
            raise ValueError(f"scope: expected one of {', '.join(_SCOPES)}, got {self.scope!r}")
        if self.whole_filters and self.scope == "filter":
            raise ValueError("scope: expected 'layer' or 'network' for whole filters, got 'filter'")

    @property
    def adds_scores(self) -> bool:
        """Whether scores are summed over a filter, and so taken raw."""
        return self.whole_filters

    def num_pruned(self, count: int) -> int:
        """Number pruned of ``count`` kernels or filters in one scope."""
        return num_pruned(count, self.keep_rate)


Selection = Threshold | Contribution | KeepRate
"""What `jnnk.pruning.make_masks` keeps of a network."""


def num_pruned(count: int, keep_rate: float) -> int:
    """Number of ``count`` items that a keep-rate prunes, rounded down.

    A keep-rate is a decimal or a quotient rounded to binary, maybe after a subtraction from 1: what
    is a whole number but for such rounding counts as that number, so that 0.9 of 100 keeps 90.

    Args:
        count: number of items.
        keep_rate: share kept, in [0, 1]; a number, not a traced one.

    Returns:
        The number pruned.

    Raises:
        ValueError: if ``keep_rate`` is not a number in [0, 1].
    """
    _check_keep_rate(keep_rate)
    dtype = np.asarray(keep_rate).dtype
    resolution = float(typed_jax.finfo(dtype if jnp.issubdtype(dtype, jnp.floating) else float).eps)
    exact = count * (1 - fractions.Fraction(float(keep_rate)))
    nearest = round(exact)
    # Half precision cannot tell a kernel of a large network: never more than a quarter is forgiven.
    is_rounding = abs(exact - nearest) <= min(8 * resolution * count, 0.25)
    return nearest if is_rounding else math.floor(exact)


def check_share(name: str, share: float | jax.Array) -> None:
    """Refuse what is no share.

    Args:
        name: of the argument.
        share: what was given.

    Raises:
        ValueError: if it is not a number in [0, 1].
    """
    if not _is_number(share) or not 0 <= share <= 1:
        raise ValueError(f"{name}: expected a share in [0, 1], got {share!r}")


def _check_keep_rate(keep_rate: float) -> None:
    if _is_traced(keep_rate):
        raise ValueError("keep_rate: expected a number, got a traced one")
    check_share("keep_rate", keep_rate)


def _is_traced(value: object) -> bool:
    return isinstance(value, Tracer)


def _is_number(value: object) -> bool:
    if not isinstance(value, numbers.Real | np.generic | np.ndarray | jax.Array):
        return False
    array = np.asarray(value)
    return array.ndim == 0 and array.dtype.kind != "b"
