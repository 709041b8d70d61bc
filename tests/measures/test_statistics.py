"""Correlations against scipy and against answers known beforehand."""

import numpy as np
import pytest
from scipy import stats

from jnnk.measures import correlation, mean_interval

RNG = np.random.default_rng(0)
COMMON = RNG.normal(size=(3000, 2))
X, Y = (COMMON @ weights + RNG.normal(size=3000) for weights in ([2.0, 1.0], [1.0, -3.0]))


def test_pearson_and_its_interval_are_scipys():
    expected = stats.pearsonr(X[:30], Y[:30])
    found = correlation(X[:30], Y[:30])
    assert found.value == pytest.approx(expected.statistic)
    assert (found.lower, found.upper) == pytest.approx(expected.confidence_interval(0.95))
    assert found.number == 30


def test_spearman_sees_ranks_alone():
    found = correlation(np.exp(X[:30]), Y[:30], method="spearman")
    assert found.value == pytest.approx(stats.spearmanr(X[:30], Y[:30]).statistic)
    assert found.lower < found.value < found.upper
    # Its interval is wider than that of a Pearson correlation of the same value.
    reach = 1.959964 / np.sqrt(27)
    assert np.arctanh(found.upper) - np.arctanh(found.value) > reach


def test_partial_correlation_is_that_of_the_formula():
    z = COMMON[:, 0]
    xy, xz, yz = (np.corrcoef(a, b)[0, 1] for a, b in ((X, Y), (X, z), (Y, z)))
    expected = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    assert correlation(X, Y, given=z).value == pytest.approx(expected)


def test_nothing_is_left_once_all_causes_are_known():
    assert abs(correlation(X, Y).value) > 0.05
    found = correlation(X, Y, given=COMMON)
    assert abs(found.value) < 0.05
    assert found.lower < 0 < found.upper


def test_missing_values_drop_their_case():
    x = X[:20].copy()
    x[3] = np.nan
    kept = np.arange(20) != 3
    assert correlation(x, Y[:20]) == correlation(X[:20][kept], Y[:20][kept])


@pytest.mark.parametrize("x", [np.ones(9), np.arange(9.0) * 2 + 1])
def test_what_a_control_explains_has_no_correlation(x):
    found = correlation(x, Y[:9], given=np.arange(9.0))
    assert np.isnan(found[:3]).all()
    assert found.number == 9


def test_too_few_cases_have_none():
    assert np.isnan(correlation(X[:2], Y[:2]).value)
    assert np.isnan(correlation(X[:3], Y[:3]).lower)


def test_unknown_method():
    with pytest.raises(ValueError, match="'kendall'"):
        correlation(X, Y, method="kendall")


def test_mean_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(1)
    samples = rng.exponential(size=(300, 100))
    intervals = [mean_interval(sample, seed=index) for index, sample in enumerate(samples)]
    covered = np.mean([found.lower < 1 < found.upper for found in intervals])
    assert 0.88 < covered < 0.99
    assert intervals[0].mean == pytest.approx(samples[0].mean())


def test_images_without_a_value_are_left_out():
    values = RNG.normal(size=50)
    with_gaps = np.insert(values, [0, 20], np.nan)
    assert mean_interval(with_gaps) == mean_interval(values)
    assert np.isnan(mean_interval(np.full(4, np.nan))).all()
