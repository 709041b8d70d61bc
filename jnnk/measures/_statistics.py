"""Statistics of what was measured: correlations with intervals, and means over images."""

from typing import NamedTuple, cast

import numpy as np
from jaxtyping import Real
from scipy import stats

from jnnk._core.arrays import ArrayLike

#: Resamples of a bootstrap, by default.
NUM_RESAMPLES = 200


class Correlation(NamedTuple):
    """A correlation of two measured quantities.

    Attributes:
        value: in [-1, 1]; NaN where a quantity is constant or too few are left.
        lower, upper: limits of its confidence interval; NaN where too few are left.
        number: of cases that have both quantities and all controls.
    """

    value: float
    lower: float
    upper: float
    number: int


class MeanInterval(NamedTuple):
    """A mean over images, and the limits that resampling the images gives it.

    Attributes:
        mean: NaN where no image has a value.
        lower, upper: limits; NaN likewise.
    """

    mean: float
    lower: float
    upper: float


def correlation(
    x: Real[ArrayLike, " n"],
    y: Real[ArrayLike, " n"],
    *,
    given: Real[ArrayLike, "n ..."] | None = None,
    method: str = "pearson",
    level: float = 0.95,
) -> Correlation:
    """Correlation of two quantities, or their partial correlation given controls.

    The partial correlation is that of the residuals of linear regressions on the controls (of
    the ranks, for Spearman's). The interval is Fisher's: ``atanh r`` is taken as normal with
    variance ``1 / (n - 3 - k)`` for k controls, times ``1 + r^2 / 2`` for Spearman's (Bonett and
    Wright 2000). It holds for independent cases; successive epochs of one training are not, so
    that there it is too narrow.

    Args:
        x: (n,) quantity; NaN for missing.
        y: (n,) the other one.
        given: (n,) or (n, k) controls; None for the plain correlation.
        method: "pearson" or "spearman".
        level: coverage of the interval.

    Returns:
        The correlation.

    Raises:
        ValueError: for an unknown method or lengths that differ.
    """
    if method not in ("pearson", "spearman"):
        raise ValueError(f"method: expected 'pearson' or 'spearman', got {method!r}")
    controls = np.empty((len(x), 0)) if given is None else given
    columns = [np.asarray(values, np.float64) for values in (x, y, controls)]
    table = np.column_stack(columns)
    table = table[np.isfinite(table).all(1)]
    number, num_controls = len(table), table.shape[1] - 2
    free = number - 3 - num_controls
    if free < 0 or (np.ptp(table[:, :2], axis=0) == 0).any():
        return Correlation(np.nan, np.nan, np.nan, number)
    if method == "spearman":
        table = cast(np.ndarray, stats.rankdata(table, axis=0))
    basis = np.column_stack([np.ones(number), table[:, 2:]])
    residuals = table[:, :2] - basis @ np.linalg.lstsq(basis, table[:, :2])[0]
    norms = np.linalg.norm(residuals, axis=0)
    spread = np.linalg.norm(table[:, :2] - table[:, :2].mean(0), axis=0)
    if (norms <= 1e-9 * spread).any():  # the controls explain all of it
        return Correlation(np.nan, np.nan, np.nan, number)
    value = float(np.clip(residuals[:, 0] @ residuals[:, 1] / norms.prod(), -1, 1))
    if free == 0 or abs(value) == 1:
        return Correlation(value, np.nan, np.nan, number)
    variance = (1 + value**2 / 2 if method == "spearman" else 1) / free
    reach = stats.norm.ppf((1 + level) / 2) * np.sqrt(variance)
    lower, upper = np.tanh(np.arctanh(value) + np.array([-reach, reach]))
    return Correlation(value, float(lower), float(upper), number)


def mean_interval(
    values: Real[ArrayLike, " Q"],
    *,
    level: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> MeanInterval:
    """A mean over images with its percentile bootstrap interval.

    Args:
        values: (Q,), one value per image; NaN where an image says nothing.
        level: coverage.
        num_resamples: how often Q images are drawn with replacement.
        seed: of the draws.

    Returns:
        Mean and limits.
    """
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    if not values.size:
        return MeanInterval(np.nan, np.nan, np.nan)
    drawn = np.random.default_rng(seed).integers(0, len(values), (num_resamples, len(values)))
    lower, upper = np.quantile(values[drawn].mean(1), [(1 - level) / 2, (1 + level) / 2])
    return MeanInterval(float(values.mean()), float(lower), float(upper))


def mean_and_std(values: list[float | None]) -> tuple[float | None, float | None]:
    """Mean and standard deviation (n - 1) of what is not None; None where there are too few."""
    known = [value for value in values if value is not None]
    mean = float(np.mean(known)) if known else None
    return mean, float(np.std(known, ddof=1)) if len(known) > 1 else None
