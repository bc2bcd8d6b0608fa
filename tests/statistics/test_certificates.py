"""Certificates: closed forms, brute force over all outcomes, and controls beyond the radius."""

import itertools

import numpy as np
import pytest
from scipy import stats

import wobbliness
import wobbliness.perturbations as families
from wobbliness.statistics import certificates


def brute_force_least(changes, keep, levels, size):
    """The least probability, from all outcomes of `size` features, likeliest ones first."""
    here, there = [], []
    for outcome in itertools.product(range(levels), repeat=size):
        # this input is all zeros, the other has ones in the first features
        one = np.prod([keep if value == 0 else (1 - keep) / (levels - 1) for value in outcome])
        other = [1] * changes + [0] * (size - changes)
        pairs = zip(outcome, other, strict=True)
        here.append(one)
        there.append(np.prod([keep if v == o else (1 - keep) / (levels - 1) for v, o in pairs]))
    here, there = np.array(here), np.array(there)
    order = np.argsort(-here / there, kind="stable")
    total = np.cumsum(there[order])
    last = int(np.argmax(total >= 0.5 - 1e-12))
    left = 0.5 - (total[last] - there[order][last])
    return here[order][:last].sum() + here[order][last] * left / there[order][last]


@pytest.mark.parametrize(("keep", "levels"), [(0.8, 2), (0.6, 2), (0.7, 3), (0.4, 4)])
@pytest.mark.parametrize(("changes", "size"), [(1, 1), (1, 4), (2, 3), (3, 5), (2, 6)])
def test_discrete_certificates_are_those_of_all_outcomes(keep, levels, changes, size):
    if levels**size > 5000:
        size = 5 if levels < 4 else max(changes, 4)
    expected = brute_force_least(changes, keep, levels, size)
    assert certificates.least_probability(changes, keep, levels) == pytest.approx(expected)


def test_one_flipped_bit_needs_the_probability_of_a_kept_one():
    """A class that is decided by one bit has p = keep, and loses when the bit is another."""
    assert certificates.least_probability(1, 0.8, 2) == pytest.approx(0.2 * 4 + 0.3 * 0.25)
    radii = certificates.kept_features_l0_radius(np.array([0.0, 0.5, 0.8, 0.999999]), 0.8, 2)
    assert radii[0] == radii[1] == radii[2] == 0
    assert radii[3] >= 3
    assert (certificates.label_flip_radius(np.array([0.9, 0.999]), 0.4) > 0).all()
    assert certificates.label_flip_radius(np.array([0.9]), 0.01)[0] == 0, (
        "control: too little noise"
    )


def test_continuous_radii_are_their_formulas():
    lower = np.array([0.3, 0.5, 0.75, 0.99])
    gaussian = certificates.gaussian_l2_radius(lower, 0.2)
    np.testing.assert_allclose(gaussian, [0, 0, *(0.2 * stats.norm.ppf([0.75, 0.99]))])
    uniform = certificates.uniform_l1_radius(lower, 0.1)
    np.testing.assert_allclose(uniform, 2 * np.sqrt(0.03) * np.array([0, 0, 0.25, 0.49]))
    laplace = certificates.laplace_l1_radius(lower, 0.1)
    np.testing.assert_allclose(laplace, -0.1 / np.sqrt(2) * np.log([1, 1, 0.5, 0.02]))
    np.testing.assert_array_equal(certificates.flow_wasserstein_radius(lower, 0.1), laplace)


FAMILIES = {
    "Gaussian": (families.Gaussian, certificates.gaussian_l2_radius, stats.norm(scale=1)),
    "Laplace": (
        families.Laplace,
        certificates.laplace_l1_radius,
        stats.laplace(scale=np.sqrt(0.5)),
    ),
    "Uniform": (
        families.Uniform,
        certificates.uniform_l1_radius,
        stats.uniform(-np.sqrt(3), 2 * np.sqrt(3)),
    ),
}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("margin", [0.05, 0.1])
def test_a_threshold_is_certified_exactly_up_to_its_border(name, margin):
    """In one dimension every bound is tight: p is the distribution at the margin."""
    family, radius, standard = FAMILIES[name]
    std = 0.12
    assert radius(np.array([standard.cdf(margin / std)]), std)[0] == pytest.approx(margin)
    votes = wobbliness.measure(
        lambda rows: (rows[:, 0] > 0.5).astype(int),
        np.full((1, 1), 0.5 + margin, np.float32),
        family(std),
        4000,
        num_classes=2,
    )
    found = radius(certificates.top_probability(votes.counts, 0.999), std)[0]
    assert 0.6 * margin < found <= margin + 1e-7, "below the true margin, as 0.999 of all are"


def test_the_bound_is_clopper_pearsons_and_one_of_a_choice_made_before_is_higher():
    counts = np.array([[90, 10], [0, 100], [50, 50]])
    lower = certificates.top_probability(counts, 0.99)
    np.testing.assert_allclose(
        lower, [stats.beta.ppf(0.005, k, 100 - k + 1) for k in (90, 100, 50)]
    )
    chosen = certificates.top_probability(counts, 0.99, label=np.array([0, 0, 1]))
    np.testing.assert_allclose(chosen[0], stats.beta.ppf(0.01, 90, 11))
    assert chosen[1] == 0, "no votes"


def test_bounds_hold_as_often_as_they_say():
    rng = np.random.default_rng(0)
    votes = rng.binomial(200, 0.8, size=2000)
    counts = np.stack([votes, 200 - votes], axis=1)
    too_high = certificates.top_probability(counts, 0.9, label=np.zeros(2000, int)) > 0.8
    assert too_high.mean() <= 0.1 + 3 * np.sqrt(0.09 / 2000)
    assert too_high.mean() > 0.04, "control: not vacuous"
