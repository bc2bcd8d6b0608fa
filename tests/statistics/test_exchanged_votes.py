"""The permutation test of where votes go: its statistic, exact level, and what it sees."""

import itertools

import numpy as np
import pytest
from scipy import stats

from wobbliness.statistics.destinations import MAX_VALUES, destination_test
from wobbliness.statistics.expected_votes import ExpectedVotes, deviance

DRAWS, NUM_CLASSES = 40, 4


def votes(rng, num_inputs, *, step=1, stay=0.7, classes=NUM_CLASSES):
    """Votes of inputs that keep their class at a share of their own, or go `step` classes on."""
    label = rng.integers(0, classes, num_inputs)
    chances = np.full((num_inputs, NUM_CLASSES), 0.02)
    own = np.clip(rng.normal(stay, 0.1, num_inputs), 0.1, 0.9)
    rows = np.arange(num_inputs)
    chances[rows, label], chances[rows, (label + step) % NUM_CLASSES] = own, 0.96 - own
    chances /= chances.sum(axis=1, keepdims=True)
    return np.stack([rng.multinomial(DRAWS, chances) for _ in range(2)]), label


def both(rng, num_clean, num_suspect, **suspect):
    clean, clean_label = votes(rng, num_clean)
    other, other_label = votes(rng, num_suspect, **suspect)
    counts = np.concatenate([clean, other], axis=1)
    is_suspect = np.arange(num_clean + num_suspect) >= num_clean
    return counts, np.concatenate([clean_label, other_label]), is_suspect


def plain_statistic(counts, label, is_suspect):
    """The mean of n D over suspect inputs, by the reference of the clean ones."""
    reference = ExpectedVotes.among(counts[:, ~is_suspect], label[~is_suspect])
    expected = reference.of(label[is_suspect], np.array([DRAWS] * len(counts)))
    return DRAWS * deviance(counts[:, is_suspect], expected).mean(axis=1)


def test_the_statistic_is_the_mean_log_likelihood_ratio():
    given = both(np.random.default_rng(0), 60, 20)
    found = destination_test(*given, num_permutations=9)
    np.testing.assert_allclose(found.statistic, plain_statistic(*given))


def test_the_pvalue_is_the_share_of_all_divisions_within_the_classes():
    counts, label, is_suspect = both(np.random.default_rng(1), 7, 3, classes=2, step=2)
    observed, higher = plain_statistic(counts, label, is_suspect).sum(), []
    num_suspect = [(is_suspect & (label == one)).sum() for one in (0, 1)]
    choices = [
        itertools.combinations(np.flatnonzero(label == one), num)
        for one, num in zip((0, 1), num_suspect, strict=True)
    ]
    for chosen in itertools.product(*choices):
        permuted = np.isin(np.arange(len(label)), np.concatenate(chosen).astype(int))
        higher.append(plain_statistic(counts, label, permuted).sum() >= observed - 1e-9)
    share, num = np.mean(higher), 4000
    found = destination_test(counts, label, is_suspect, num_permutations=num)
    assert 0 < share < 1
    assert found.pvalue == pytest.approx(share, abs=4 * np.sqrt(0.25 / num) + 1 / num)


def test_the_level_is_exact_whatever_the_shares_of_the_classes():
    """With 19 permutations p is a multiple of 1 / 20, and at most 0.1 in one of ten batches."""
    rng, trials, num_found, level = np.random.default_rng(2), 400, 0, 0.1
    for seed in range(trials):
        # the suspects are of two classes, the clean ones of four
        given = both(rng, 30, 8, classes=2)
        num_found += destination_test(*given, num_permutations=19, seed=seed).pvalue <= level
    assert stats.binomtest(num_found, trials, level).pvalue > 1e-3


@pytest.mark.parametrize(("step", "stay"), [(2, 0.7), (1, 0.95)])
def test_other_destinations_are_seen_and_so_is_another_share_that_stays(step, stay):
    rng = np.random.default_rng(3)
    found = destination_test(*both(rng, 80, 16, step=step, stay=stay))
    assert found.pvalue < 0.005
    assert (found.statistic > found.usual).all()
    assert (found.pvalues < 0.05).all()
    control = destination_test(*both(rng, 80, 16))
    assert control.pvalue > 0.05, "control"


def test_entropy_alone_does_not_tell_the_destinations():
    """Control: votes that go elsewhere are as spread; W of both batches is alike."""
    counts, _, is_suspect = both(np.random.default_rng(4), 80, 16, step=2)
    w = stats.entropy(counts[0], axis=1)
    assert stats.mannwhitneyu(w[~is_suspect], w[is_suspect]).pvalue > 0.05


def test_a_class_of_one_kind_says_nothing():
    counts, label, is_suspect = both(np.random.default_rng(5), 40, 10)
    found = destination_test(counts, np.where(is_suspect, 3, label % 3), is_suspect)
    assert (found.pvalue, found.pvalues.tolist()) == (1, [1, 1])
    for kind in (True, False):
        with pytest.raises(ValueError, match="expected suspect inputs and clean ones, got one"):
            destination_test(counts, label, np.full(50, kind))


def test_pages_change_nothing_but_the_draws_of_the_permutations(monkeypatch):
    given = both(np.random.default_rng(6), 40, 10)
    whole = destination_test(*given, num_permutations=300)
    monkeypatch.setattr("wobbliness.statistics.destinations.MAX_VALUES", MAX_VALUES // 10**4)
    paged = destination_test(*given, num_permutations=300)
    np.testing.assert_allclose(paged.statistic, whole.statistic)
    np.testing.assert_allclose(paged.usual, whole.usual, rtol=0.1)
