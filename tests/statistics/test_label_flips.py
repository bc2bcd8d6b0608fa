"""Votes under flipped labels: bounds against all flips, closed forms, and simulated trainings."""

import itertools

import numpy as np
import pytest
from scipy import optimize, stats

from wobbliness.perturbations import LabelFlip
from wobbliness.sampling.trainings import measure_trainings
from wobbliness.statistics import certificates
from wobbliness.statistics.label_flips import (
    flipped_head_bounds,
    flipped_head_radius,
    ridge_weights,
)

Z = 4.0  # standard errors that a share of simulated votes may be off by


def made_head(m, *, seed=0, num_points=8, separation=1.5):
    """Two clouds of training features, with an intercept, their labels, and points of both."""
    rng = np.random.default_rng(seed)
    labels = np.arange(m) % 2
    points_of = np.arange(num_points) % 2
    features, points = (
        np.column_stack(
            [rng.normal(size=(len(of), 2)) + separation * of[:, None], np.ones(len(of))]
        )
        for of in (labels, points_of)
    )
    return features, labels, points


def all_flips(m):
    return np.array(list(itertools.product((0, 1), repeat=m)))


def exact_probabilities(weights, labels, share):
    """Probability of class 1 over all 2^m flips."""
    flips = all_flips(len(labels))
    chances = np.prod(np.where(flips, share, 1 - share), axis=1)
    flipped = flips ^ labels
    # a rounding below 1/2 is 1/2: the heads of these tests have no other ties
    return ((weights @ flipped.T) >= 0.5 - 1e-12) @ chances


@pytest.mark.parametrize("share", [0.05, 0.2, 0.45])
@pytest.mark.parametrize("m", [3, 8, 12])
def test_bounds_are_below_the_probabilities_of_all_flips(m, share):
    features, labels, points = made_head(m)
    weights = ridge_weights(features, points, 0.1)
    ones = exact_probabilities(weights, labels, share)
    bounds = flipped_head_bounds(weights, labels, share)
    assert (bounds <= np.stack([1 - ones, ones], axis=1) + 1e-9).all()
    assert (bounds >= 0).all()
    assert (bounds.min(axis=1) == 0).all(), "at most one class has a bound"


def test_bounds_tell_something_and_nothing_at_labels_of_noise_alone():
    features, labels, points = made_head(12)
    weights = ridge_weights(features, points, 0.1)
    assert flipped_head_bounds(weights, labels, 0.05).max(axis=1).mean() > 0.5
    even = flipped_head_bounds(np.full((1, 12), 1 / 12), labels, 0.5)
    assert even.max() < 1e-6, "control: the mean is at the threshold"


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_bounds_are_chernoffs_as_another_minimiser_finds_them(share):
    features, labels, points = made_head(11, seed=3)
    weights = ridge_weights(features, points, 0.5)
    ones = np.where(labels == 1, 1 - share, share)

    def failing(t, alpha):
        return np.exp(t / 2) * np.prod(1 - ones + ones * np.exp(-t * alpha))

    expected = [
        1 - optimize.minimize_scalar(failing, (0, 50), (0, 500), args=(alpha,), method="bounded",
                                     options={"xatol": 1e-9}).fun
        for alpha in weights
    ]  # fmt: skip
    found = flipped_head_bounds(weights, labels, share)[:, 1]
    np.testing.assert_allclose(found, np.maximum(expected, 0), atol=1e-7)
    assert found.max() > 0.1


@pytest.mark.parametrize("m", [5, 100, 10_001])
def test_equal_weights_give_the_exponent_of_a_fair_coin(m):
    """P(a majority of m flips with q) <= exp(-m KL(1/2, q)) = (2 sqrt(q (1 - q)))^m."""
    share, weights = 0.2, np.full((1, m), 1 / m)
    expected = 1 - (4 * share * (1 - share)) ** (m / 2)
    for label in (0, 1):
        bounds = flipped_head_bounds(weights, np.full(m, label), share)
        assert bounds[0, label] == pytest.approx(expected, abs=1e-12)
        # the binomial distribution itself is beyond the bound
        assert bounds[0, label] <= stats.binom.cdf(m // 2, m, share) + 1e-12


@pytest.mark.parametrize("share", [0.05, 0.2, 0.4])
def test_a_majority_is_certified_below_its_border_also_where_probabilities_round_to_1(share):
    """Of m ones fewer than half may be flipped, whatever the noise."""
    for m in (11, 101, 1001):
        radius = flipped_head_radius(np.full((1, m), 1 / m), np.ones(m, int), share)[0]
        exponent = m / 2 * np.log(4 * share * (1 - share))
        rate = 2 * (1 - 2 * share) * np.log(share / (1 - share))
        published = np.floor((np.log(4) + np.log1p(-np.exp(exponent)) + exponent) / rate)
        published *= exponent < np.log(0.5)  # else there is no majority
        assert published <= radius <= m // 2
        # rounding takes at most what a bound of 1 - 2^-40 would certify
        if exponent < np.log(2.0**-45):
            assert radius == max(
                published, certificates.label_flip_radius(np.array([1 - 2.0**-40]), share)[0]
            )


def test_a_head_that_no_flip_can_move_is_certain():
    bounds = flipped_head_bounds(np.zeros((1, 4)), np.array([0, 1, 1, 0]), 0.3)
    np.testing.assert_array_equal(bounds, [[1 - 2.0**-40, 0]])
    assert flipped_head_radius(np.zeros((1, 4)), np.array([0, 1, 1, 0]), 0.3) == 4
    # the least of its sums is above the threshold
    two = flipped_head_bounds(np.array([[-0.2, -0.2]]) - 2, np.array([0, 1]), 0.3)
    assert two[0, 0] == pytest.approx(1)


@pytest.mark.parametrize("share", [0.05, 0.1])
def test_no_flips_within_the_certified_radius_change_the_smoothed_class(share):
    """All training sets within the radius, each under all flips; beyond the radius some change."""
    features, labels, points = made_head(9, seed=1, separation=3.0)
    weights = ridge_weights(features, points, 0.1)
    bounds = flipped_head_bounds(weights, labels, share)
    radii = flipped_head_radius(weights, labels, share)
    assert radii.max() >= 1
    assert (radii >= certificates.label_flip_radius(bounds.max(axis=1), share)).all()
    all_ways, is_changed = all_flips(9), np.zeros((10, len(points)), bool)
    for attack in all_ways:
        ones = exact_probabilities(weights, labels ^ attack, share)
        is_changed[attack.sum()] |= (ones > 0.5) != (bounds[:, 1] > bounds[:, 0])
    for point, radius in enumerate(radii):
        if bounds[point].max() > 0.5:
            assert not is_changed[: radius + 1, point].any()
    assert is_changed[9].all(), "control: all labels flipped"


@pytest.mark.parametrize("share", [0.05, 0.2, 0.4])
def test_the_exact_radius_is_never_below_the_published_one(share):
    """Rosenfeld et al.: ln(4 p (1 - p)) / (2 (1 - 2 q) ln(q / (1 - q))), by a divergence."""
    lower = np.linspace(0.51, 1 - 1e-6, 200)
    entropies = 2 * (1 - 2 * share) * np.log(share / (1 - share))
    published = np.floor(np.log(4 * lower * (1 - lower)) / entropies)
    exact = certificates.label_flip_radius(lower, share)
    assert (exact >= published).all()
    assert (exact > published).any()


@pytest.mark.parametrize("share", [0.15, 0.35])
def test_simulated_trainings_have_the_exact_probabilities_and_keep_the_bounds(share):
    features, labels, points = made_head(10, seed=2)
    points = points[:, :2].clip(-3, 3)
    scale = np.array([6.0, 6.0])
    images = (points + 3) / scale  # inputs are in [0, 1]; the head undoes it

    def train(flipped):
        gram = features.T @ features + 0.1 * np.eye(3)
        head = np.linalg.solve(gram, features.T @ flipped)
        return lambda inputs: (
            np.column_stack([inputs * scale - 3, np.ones(len(inputs))]) @ head >= 0.5
        ).astype(int)

    draws = 3000
    votes = measure_trainings(train, labels, images, LabelFlip(share), draws=draws)
    seen = np.column_stack([images.astype(np.float32) * scale - 3, np.ones(len(images))])
    weights = ridge_weights(features, seen, 0.1)
    ones = exact_probabilities(weights, labels, share)
    error = Z * np.sqrt(ones * (1 - ones) / draws)
    assert (np.abs(votes.probabilities[:, 1] - ones) <= error + 1e-12).all()
    bounds = flipped_head_bounds(weights, labels, share)
    assert (votes.probabilities >= bounds - error[:, None]).all()
    assert votes.wobbliness.max() > 0.3


def test_the_weights_are_those_of_scikit_learns_ridge():
    from sklearn.linear_model import Ridge

    features, labels, points = made_head(30)
    head = Ridge(alpha=0.7, fit_intercept=False).fit(features, labels)
    np.testing.assert_allclose(
        ridge_weights(features, points, 0.7) @ labels, head.predict(points), atol=1e-10
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ridge_weights(np.eye(2), np.eye(2), 0.0), "expected a ridge above 0, got 0"),
        (
            lambda: flipped_head_bounds(np.eye(2), np.array([0, 1]), 0.0),
            r"share in \(0, 1\), got 0",
        ),
        (lambda: flipped_head_radius(np.eye(2), np.array([0, 1]), 0.5), "a share in .0, 1/2., got"),
        (lambda: flipped_head_bounds(np.eye(2), np.array([0, 2]), 0.1), "labels 0 and 1, got 0 to"),
    ],
)
def test_bad_settings_get_one_line(make, message):
    with pytest.raises(ValueError, match=message) as raised:
        make()
    assert "\n" not in str(raised.value)
