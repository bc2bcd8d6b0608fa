"""Bootstrap intervals: they cover what is known, and say so where nothing can be known."""

import numpy as np
import pytest
from scipy import stats

from wobbliness.statistics.bootstrap import auc_bootstrap, kendall_bootstrap, pearson_bootstrap


def test_intervals_agree_with_scipys_bootstrap():
    rng = np.random.default_rng(0)
    x = rng.normal(size=60)
    y = x + rng.normal(size=60)
    reference = stats.bootstrap(
        (x, y),
        lambda a, b: stats.pearsonr(a, b)[0],
        paired=True,
        vectorized=False,
        n_resamples=1000,
        method="percentile",
        rng=1,
    ).confidence_interval
    np.testing.assert_allclose(pearson_bootstrap(x, y, seed=0), reference, atol=0.03)
    lower, upper = kendall_bootstrap(x, y, seed=0)
    assert lower < stats.kendalltau(x, y).statistic < upper


def test_area_intervals_cover_the_true_area_about_as_often_as_they_say():
    true, covered = stats.norm.cdf(1 / np.sqrt(2)), 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        scores = np.r_[rng.normal(1, 1, 40), rng.normal(0, 1, 40)]
        lower, upper = auc_bootstrap(np.arange(80) < 40, scores, seed=seed)
        covered += lower <= true <= upper
    assert stats.binomtest(covered, 60, 0.95).pvalue > 0.001
    assert covered < 60 or upper - lower < 0.5


def test_unrelated_values_have_an_interval_around_zero_and_constant_resamples_do_no_harm():
    rng = np.random.default_rng(2)
    for interval in (kendall_bootstrap, pearson_bootstrap):
        lower, upper = interval(rng.normal(size=50), rng.normal(size=50), seed=0)
        assert lower < 0 < upper
        lower, upper = interval([0.0, 0.0, 1.0], [1.0, 2.0, 3.0], seed=0)
        assert -1 <= lower <= upper <= 1


def test_the_same_seed_gives_the_same_interval_and_a_perfect_area_collapses():
    x, y = np.arange(20.0), np.arange(20.0) ** 2
    assert (
        pearson_bootstrap(x, y, seed=3)
        == pearson_bootstrap(x, y, seed=3)
        != pearson_bootstrap(x, y, seed=4)
    )
    assert auc_bootstrap([True, True, False], [3, 2, 1], seed=0) == pytest.approx((1.0, 1.0))
