"""Votes of clean inputs as a reference, and how far other votes are from it."""

import numpy as np
import pytest
from scipy import special, stats

import wobbliness
from wobbliness.statistics.expected_votes import (
    POOLED_INPUTS,
    SPREAD_VOTES,
    ExpectedVotes,
    deviance,
)

DRAWS = 50


def clean_votes(num_inputs=300, num_classes=4, seed=0):
    """Votes of inputs that keep their class in seven of ten copies and stray to the next one."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, num_classes, num_inputs)
    chances = np.full((num_inputs, num_classes), 0.02)
    chances[np.arange(num_inputs), (label + 1) % num_classes] = 0.26
    chances[np.arange(num_inputs), label] = 1 - chances.sum(axis=1) + 0.02
    return rng.multinomial(DRAWS, chances)[None], label


def expected(counts, label, of, **settings):
    reference = ExpectedVotes.among(counts, label)
    return reference.of(np.asarray(of), np.array([DRAWS]), **settings)


def test_deviance_is_the_likelihood_ratio_statistic():
    rng = np.random.default_rng(0)
    counts, shares = rng.multinomial(DRAWS, [0.5, 0.3, 0.2], 20), np.array([0.2, 0.3, 0.5])
    found = 2 * DRAWS * deviance(counts, shares)
    reference = [
        stats.power_divergence(row, DRAWS * shares, lambda_="log-likelihood")[0] for row in counts
    ]
    np.testing.assert_allclose(found, reference, atol=1e-9)
    np.testing.assert_allclose(
        deviance(counts, shares), special.rel_entr(counts / DRAWS, shares).sum(axis=1)
    )
    assert deviance(np.array([10, 15, 25]), shares) == 0


def test_expected_shares_of_a_common_class_are_its_mean_votes():
    counts, label = clean_votes(num_inputs=4000)
    found = expected(counts, label, [2])[0, 0]
    np.testing.assert_allclose(found, counts[0][label == 2].mean(axis=0) / DRAWS, atol=0.02)
    assert found.sum() == pytest.approx(1)


def test_a_class_never_seen_agrees_as_often_as_all_and_strays_where_all_stray():
    counts, label = clean_votes(num_classes=3)
    wide = np.pad(counts, ((0, 0), (0, 0), (0, 1)))
    found = expected(wide, label, [3])[0, 0]
    agreement = counts[0][np.arange(len(label)), label].sum() / counts.sum()
    floor = SPREAD_VOTES / (DRAWS + SPREAD_VOTES)
    assert found[3] == pytest.approx(agreement * (1 - floor) + floor / 4)
    assert found.sum() == pytest.approx(1)
    assert found.min() > 0


def test_an_input_is_compared_with_the_others_alone():
    counts, label = clean_votes(num_inputs=60)
    row = 7
    others = np.delete(np.arange(60), row)
    alone = expected(counts[:, others], label[others], label[[row]])
    within = expected(counts, label, label[[row]], without=counts[:, [row]])
    # but for the agreement share that all classes lend to it
    np.testing.assert_allclose(within, alone, atol=1 / (60 * POOLED_INPUTS))
    with_own = expected(counts, label, label[[row]])
    assert np.abs(with_own - alone).max() > np.abs(within - alone).max(), "control"


def test_votes_of_one_sided_clean_images_have_a_small_deviance_and_others_a_large_one():
    def brightness(images):
        return np.minimum((images.mean(axis=1) * 4).astype(int), 3)

    rng = np.random.default_rng(0)
    images = rng.random((200, 5), dtype=np.float32)
    settings = {"draws": DRAWS, "keep_clean": True, "num_classes": 4}
    clean = wobbliness.measure(brightness, images[:150], 0.3, **settings)
    new = wobbliness.measure(brightness, images[150:], 0.3, **settings)

    def backwards(some):
        """Strays to the far end, where no clean image goes."""
        label = brightness(some)
        return np.where(np.abs(some - 0.5).max(axis=1) > 0.8, 3 - label, label)

    other = wobbliness.measure(backwards, images[150:], 0.3, **settings)
    assert np.median(new.deviance(clean)) < 0.1 < np.median(other.deviance(clean))
    np.testing.assert_allclose(new.deviance(new.probabilities), 0, atol=1e-12)
    assert new.deviance(np.full(4, 0.25)) == pytest.approx(np.log(4) - new.wobbliness)


def test_bad_references_get_one_line():
    votes = wobbliness.measure(lambda x: (x[:, 0] > 0.5).astype(int), [[0.5], [0.9]], 0.1)
    with pytest.raises(ValueError, match="expected votes with the clean predictions on both"):
        votes.deviance(votes)
    with pytest.raises(ValueError, match=r"expected shares of shape \(2, 2\) or \(2,\), got \(3,"):
        votes.deviance([0.2, 0.3, 0.5])
    with pytest.raises(ValueError, match="expected shares of at least 0 that add up to 1"):
        votes.deviance([0.2, 0.3])
