"""The noise: exactly normal, independent per image and draw, addressed by (seed, key, draw)."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from wobbliness.perturbations.base import image_keys
from wobbliness.perturbations.noise.gaussian import NormalStream


def draws(seed, key, num_draws, *, first=0, shape=(8,), sizes=None):
    stream = NormalStream(seed, key, shape, first_draw=first)
    return np.concatenate([stream.take(size).copy() for size in sizes or [num_draws]])


@given(sizes=st.lists(st.integers(1, 90), min_size=1, max_size=6), first=st.integers(0, 200))
@settings(deadline=None)
def test_any_draw_is_the_same_however_it_is_reached(sizes, first):
    whole = draws(5, 7, first + sum(sizes))
    assert np.array_equal(draws(5, 7, 0, first=first, sizes=sizes), whole[first:])


def test_it_is_normal():
    sample = draws(0, 1, 4000, shape=(50,)).ravel()
    assert sample.dtype == np.float32
    assert stats.kstest(sample, "norm").pvalue > 0.001
    assert stats.kstest(sample * 1.02, "norm").pvalue < 0.001, (
        "control: the test has the power to see 2 %"
    )


def test_the_two_halves_of_a_transform_are_independent():
    """Correlations of squares and signs too: the values of a pair share a radius."""
    sample = draws(0, 3, 4000, shape=(50,))
    first, second = sample[:, :25].ravel(), sample[:, 25:].ravel()
    for function in (np.square, np.sign, np.abs):
        assert abs(np.corrcoef(function(first), function(second))[0, 1]) < 5 / np.sqrt(
            first.size
        ), function
    angle = np.arctan2(second, first) / (2 * np.pi) + 0.5
    assert stats.kstest(angle, "uniform").pvalue > 0.001


def test_tails_reach_beyond_five_standard_deviations():
    sample = draws(0, 4, 4000, shape=(2500,))
    for limit in (3, 4, 4.5):
        expected = sample.size * 2 * stats.norm.sf(limit)
        assert abs((np.abs(sample) > limit).sum() - expected) < 5 * np.sqrt(expected)
    assert np.abs(sample).max() > 5


def test_images_seeds_and_draws_are_uncorrelated():
    base = draws(0, 1, 128, shape=(500,))
    others = {
        "image": draws(0, 2, 128, shape=(500,)),
        "seed": draws(1, 1, 128, shape=(500,)),
        "draw": np.roll(base, 1, axis=0),
        "half of a draw": np.roll(base, 250, axis=1),
        "pixel": np.roll(base, 1, axis=1),
        "high bits of the key": draws(0, 1 + 2**32, 128, shape=(500,)),
    }
    for name, other in others.items():
        assert abs(np.corrcoef(base.ravel(), other.ravel())[0, 1]) < 5 / np.sqrt(base.size), name


def test_keys_are_of_the_images_values_alone():
    images = np.random.default_rng(0).random((5, 1, 4, 4), dtype=np.float32)
    keys = image_keys(images)
    assert np.array_equal(image_keys(images[::-1]), keys[::-1])
    assert np.array_equal(image_keys(images.astype(np.float64)), keys)
    assert len(set(keys)) == 5
    assert image_keys(images.reshape(5, 16))[0] != keys[0]
    assert image_keys(np.array([[0.0]])) == image_keys(np.array([[-0.0]]))
