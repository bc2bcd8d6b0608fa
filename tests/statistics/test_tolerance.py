"""Tolerance limits and bounds of a share against closed forms, scipy and simulations."""

import numpy as np
import pytest
from scipy import stats

from wobbliness.statistics.tolerance import (
    binomial_lower_bound,
    binomial_upper_bound,
    upper_tolerance_limit,
    values_needed,
)


@pytest.mark.parametrize(
    ("share", "confidence", "number"), [(0.05, 0.95, 59), (0.01, 0.95, 299), (0.1, 0.99, 44)]
)
def test_the_number_of_values_is_that_of_the_published_tables(share, confidence, number):
    assert values_needed(share, confidence) == number
    assert (
        upper_tolerance_limit(np.arange(number - 1.0), share=share, confidence=confidence) is None
    )
    limit = upper_tolerance_limit(np.arange(float(number)), share=share, confidence=confidence)
    assert limit == number - 1


@pytest.mark.parametrize("num_values", [100, 1000, 66_500])
def test_the_order_statistic_is_that_of_the_binomial_law(num_values):
    share, confidence = (0.05, 0.99) if num_values <= 1000 else (1e-4, 0.99)
    values = np.random.default_rng(0).permutation(num_values).astype(float)
    limit = upper_tolerance_limit(values, share=share, confidence=confidence)
    num_above = num_values - 1 - int(limit)
    law = stats.binom(num_values, share)
    assert law.cdf(num_above) <= 1 - confidence < law.cdf(num_above + 1)


def test_the_limit_holds_with_the_stated_confidence_and_a_lower_one_does_not():
    rng, share, confidence, runs = np.random.default_rng(0), 0.05, 0.9, 4000
    samples = rng.exponential(size=(runs, 200))
    limits = np.array(
        [upper_tolerance_limit(each, share=share, confidence=confidence) for each in samples]
    )
    is_valid = np.exp(-limits) <= share
    error = 3 * np.sqrt(confidence * (1 - confidence) / runs)
    assert is_valid.mean() >= confidence - error
    # the next lower order statistic would not have held
    lower = np.array(
        [each[each < limit].max() for each, limit in zip(samples, limits, strict=True)]
    )
    assert (np.exp(-lower) <= share).mean() < confidence


def test_the_limit_holds_for_parts_of_other_distributions():
    # A tenth of the sources has all values that matter, as images near a boundary have.
    rng, share, confidence, runs, sources = np.random.default_rng(1), 0.02, 0.9, 2000, 20
    limits = []
    for _ in range(runs):
        values = np.full((sources, 20), -np.inf)
        values[:2] = rng.exponential(size=(2, 20))
        limits.append(upper_tolerance_limit(values.ravel(), share=share, confidence=confidence))
    shares = 2 / sources * np.exp(-np.array(limits))
    assert (shares <= share).mean() >= confidence - 3 * np.sqrt(0.09 / runs)


def test_minus_infinity_is_a_limit_where_nothing_counts():
    values = np.full(1000, -np.inf)
    assert upper_tolerance_limit(values, share=0.05, confidence=0.99) == -np.inf


@pytest.mark.parametrize(("hits", "trials"), [(0, 10), (3, 10), (10, 10), (7, 500)])
def test_bounds_of_a_share_are_those_of_scipy(hits, trials):
    for side, bound in (("less", binomial_upper_bound), ("greater", binomial_lower_bound)):
        interval = stats.binomtest(hits, trials, alternative=side).proportion_ci(0.95, "exact")
        expected = interval.high if side == "less" else interval.low
        np.testing.assert_allclose(bound(hits, trials, 0.95), expected, rtol=1e-9, atol=1e-12)


def test_without_a_trial_nothing_is_known():
    assert binomial_upper_bound(0, 0, 0.95) == 1
    assert binomial_lower_bound(0, 0, 0.95) == 0
