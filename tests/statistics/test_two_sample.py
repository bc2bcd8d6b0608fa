"""Batch tests, outliers, ROC and correlations against independent references."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from sklearn import metrics

import wobbliness
from wobbliness.detectors.inputs.noise_level import choose_sigma, levene_pvalues
from wobbliness.statistics.row_tests import levene_rows, mann_whitney_rows
from wobbliness.statistics.two_sample import auc_interval, is_outlier, rate

BATCH = arrays(
    np.float64,
    st.integers(3, 40),
    elements=st.sampled_from([0.0, 0.0, 0.0, 0.1, 0.2, 0.35, 0.8, 1.7]),
)
REAL = arrays(np.float64, st.integers(3, 40), elements=st.floats(0, 2.3))


def wobbly(rng, size, share=0.5):
    """A batch like those of W: many zeros and a right tail."""
    return np.where(rng.random(size) < share, rng.gamma(1.0, 0.3, size), 0.0)


@given(BATCH, BATCH)
def test_levene_on_all_points_is_scipys(clean, suspect):
    ours = wobbliness.levene_test(clean, suspect)
    if np.ptp(clean) == np.ptp(suspect) == 0:
        assert ours.pvalue_all_points == 1
        return
    with np.errstate(all="ignore"):
        reference = stats.levene(clean, suspect, center="median")
    if np.isfinite(reference.statistic) and reference.statistic < 1e6:
        assert ours.statistic_all_points == pytest.approx(reference.statistic, rel=1e-6, abs=1e-9)
        assert ours.pvalue_all_points == pytest.approx(reference.pvalue, rel=1e-6, abs=1e-12)


@given(REAL, REAL)
def test_levene_after_removal_is_scipys_on_what_is_left(clean, suspect):
    ours = wobbliness.levene_test(clean, suspect)
    kept = [batch[~is_outlier(batch)] for batch in (clean, suspect)]
    assert (ours.num_removed_clean, ours.num_removed_suspect) == (
        len(clean) - len(kept[0]),
        len(suspect) - len(kept[1]),
    )
    if max(np.ptp(batch) for batch in kept) > 1e-3:
        with np.errstate(all="ignore"):
            reference = stats.levene(*kept, center="median")
        if np.isfinite(reference.statistic) and reference.statistic < 1e6:
            assert ours.pvalue == pytest.approx(reference.pvalue, rel=1e-5, abs=1e-9)


def test_pairs_in_rows_are_tested_like_each_alone():
    rng = np.random.default_rng(0)
    clean, suspect = (
        np.stack([wobbly(rng, size, share) for share in np.linspace(0, 1, 30)]) for size in (25, 40)
    )
    suspect[3] = clean[3, 0] = clean[0] = 0.5
    levene, directional = levene_rows(clean, suspect), mann_whitney_rows(clean, suspect)
    assert len(set(levene.num_removed_clean)) > 3
    for row, (one, other) in enumerate(zip(clean, suspect, strict=True)):
        for name, value in vars(wobbliness.levene_test(one, other)).items():
            assert getattr(levene, name)[row] == pytest.approx(value, rel=1e-9)
        alone = wobbliness.mann_whitney_test(one, other)
        assert (directional.statistic[row], directional.pvalue[row]) == (
            alone.statistic,
            alone.pvalue,
        )


def test_constant_batches_are_no_evidence():
    result = wobbliness.levene_test([0.0] * 10, [1.0] * 10)
    assert (result.pvalue, result.pvalue_all_points) == (1, 1)
    assert wobbliness.mann_whitney_test([0.5] * 10, [0.5] * 10).pvalue == 1


def test_removal_can_delete_every_wobbly_point():
    """With more than three quarters zeros the IQR is 0, and everything else is an outlier."""
    clean = np.r_[np.zeros(80), np.linspace(0.1, 1, 20)]
    result = wobbliness.levene_test(clean, np.zeros(100))
    assert (result.num_removed_clean, result.pvalue) == (20, 1)
    assert result.pvalue_all_points < 1e-3


def test_outliers_are_those_beyond_the_whiskers():
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 11.01, -5.0]
    q25, q75 = np.quantile(values, [0.25, 0.75])
    expected = [v > q75 + 1.5 * (q75 - q25) or v < q25 - 1.5 * (q75 - q25) for v in values]
    assert is_outlier(values).tolist() == expected
    assert any(expected)
    assert not is_outlier([3.0] * 5).any()


@given(BATCH, BATCH)
def test_mann_whitney_is_scipys(clean, suspect):
    ours = wobbliness.mann_whitney_test(clean, suspect)
    if np.ptp(np.r_[clean, suspect]) == 0:
        return
    reference = stats.mannwhitneyu(clean, suspect, alternative="greater", method="asymptotic")
    assert ours.statistic == reference.statistic
    assert ours.pvalue == pytest.approx(reference.pvalue, rel=1e-9)
    assert ours.effect_size == pytest.approx(
        np.mean(np.sign(clean[:, None] - suspect[None]) / 2 + 0.5)
    )


def test_the_directional_test_sees_only_smoother_batches():
    rng = np.random.default_rng(0)
    clean, smoother, wobblier = (
        wobbly(rng, 100),
        wobbly(rng, 100, share=0.05),
        0.5 + wobbly(rng, 100),
    )
    assert wobbliness.mann_whitney_test(clean, smoother).pvalue < 1e-6
    assert wobbliness.mann_whitney_test(clean, wobblier).pvalue > 0.9
    assert wobbliness.levene_test(clean, 4 * wobbly(rng, 100)).pvalue_all_points < 1e-3, (
        "Levene is blind to the sign"
    )


def test_false_positives_of_clean_against_clean():
    """Both tests hold their level on all points; outlier removal per batch breaks Levene's."""
    rng, num_pairs = np.random.default_rng(0), 1000
    pairs = [(wobbly(rng, 50), wobbly(rng, 50)) for _ in range(num_pairs)]
    levene = [wobbliness.levene_test(*pair) for pair in pairs]
    below = {
        "levene, all points": sum(test.pvalue_all_points <= 0.05 for test in levene),
        "directional": sum(wobbliness.mann_whitney_test(*pair).pvalue <= 0.05 for pair in pairs),
    }
    for name, num_below in below.items():
        interval = rate(num_below, num_pairs, confidence=0.999)
        assert interval.lower <= 0.05, f"{name}: {interval}"
        assert num_below > 0, name
    assert rate(sum(test.pvalue <= 0.05 for test in levene), num_pairs).lower > 0.05


@given(arrays(np.float64, 30, elements=st.sampled_from([0.0, 0.5, 1.0, 2.0])), st.integers(1, 29))
def test_roc_is_scikit_learns(scores, num_positives):
    positive = np.arange(30) < num_positives
    curve = wobbliness.roc_curve(positive, scores)
    assert curve.auc == pytest.approx(metrics.roc_auc_score(positive, scores))
    false_positive_rate, true_positive_rate, _ = metrics.roc_curve(
        positive, scores, drop_intermediate=False
    )
    np.testing.assert_allclose(curve.false_positive_rate, false_positive_rate)
    np.testing.assert_allclose(curve.true_positive_rate, true_positive_rate)
    assert curve.auc_lower <= curve.auc <= curve.auc_upper


def test_auc_interval_covers_and_does_not_collapse():
    rng, covered, num_repeats = np.random.default_rng(0), 0, 400
    true_area = stats.norm.cdf(1.5 / np.sqrt(2))
    for _ in range(num_repeats):
        scores = np.r_[rng.normal(1.5, 1, 15), rng.normal(0, 1, 40)]
        curve = wobbliness.roc_curve(np.arange(55) < 15, scores)
        covered += curve.auc_lower <= true_area <= curve.auc_upper
    assert rate(int(covered), num_repeats, confidence=0.999).upper >= 0.95
    lower, upper = auc_interval(1.0, 9, 75)
    assert upper == 1
    assert 0.7 < lower < 0.95


def test_correlations_are_scipys():
    rng = np.random.default_rng(0)
    x = rng.normal(size=30)
    y = -x + rng.normal(size=30)
    assert wobbliness.kendall(x, y).pvalue == pytest.approx(stats.kendalltau(x, y).pvalue)
    assert wobbliness.pearson(x, y).coefficient == pytest.approx(stats.pearsonr(x, y).statistic)
    assert wobbliness.pearson(x, y).coefficient < -0.5
    for bad in ((x, y[:5]), (x, np.zeros(30)), (x[:2], y[:2])):
        with pytest.raises(ValueError, match="^expected "):
            wobbliness.kendall(*bad)


@pytest.mark.parametrize("batch", [[0.1], [], [0.1, float("nan")], [[0.1, 0.2]]])
def test_bad_batches_are_refused(batch):
    for test in (wobbliness.levene_test, wobbliness.mann_whitney_test):
        with pytest.raises(ValueError, match="^expected clean W"):
            test(batch, [0.1, 0.2])


def test_roc_wants_both_kinds():
    for positive, scores in (([1, 1], [0.1, 0.2]), ([0, 0], [0.1, 0.2]), ([0, 1], [0.1])):
        with pytest.raises(ValueError, match="^expected "):
            wobbliness.roc_curve(positive, scores)


@given(st.integers(0, 20), st.floats(0.5, 0.999))
@settings(max_examples=20)
def test_rate_is_clopper_pearson(num_successes, confidence):
    ours = rate(num_successes, 20, confidence=confidence)
    error = (1 - confidence) / 2
    assert ours.lower == pytest.approx(
        stats.beta.ppf(error, num_successes, 21 - num_successes) if num_successes else 0
    )
    assert ours.upper == pytest.approx(
        stats.beta.isf(error, num_successes + 1, 20 - num_successes) if num_successes < 20 else 1
    )


def test_sigma_is_the_smallest_that_tells_smooth_from_clean():
    rng = np.random.default_rng(0)
    clean_w = {0.05: wobbly(rng, 300, 0.02), 0.1: wobbly(rng, 300, 0.3), 0.2: wobbly(rng, 300, 0.9)}
    assert choose_sigma(clean_w, batch_size=100).sigma == 0.1
    assert choose_sigma(clean_w, batch_size=100, test=levene_pvalues).sigma == 0.2
    assert choose_sigma(clean_w, batch_size=100).reached
    nothing = choose_sigma({0.1: np.zeros(50), 0.2: np.zeros(50)}, batch_size=25)
    assert (nothing.reached, nothing.power) == (False, 0)
    with pytest.raises(ValueError, match="^expected clean W at one sigma"):
        choose_sigma({}, batch_size=25)
    with pytest.raises(ValueError, match="^expected batches"):
        choose_sigma(clean_w, batch_size=1)
