"""The noise: exactly normal, independent per image and draw, addressed by (seed, key, draw)."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from wobbliness.noise import PAGE, image_keys, standard_normal


def draws(seed, key, num_draws, *, first=0, shape=(8,), sizes=None):
    blocks = standard_normal(seed, key, shape, first_draw=first, block_sizes=sizes or [num_draws])
    return np.concatenate([block.copy() for block in blocks])


@given(sizes=st.lists(st.integers(1, 90), min_size=1, max_size=6), first=st.integers(0, 200))
@settings(deadline=None)
def test_any_draw_is_the_same_however_it_is_reached(sizes, first):
    whole = draws(5, 7, first + sum(sizes))
    assert np.array_equal(draws(5, 7, 0, first=first, sizes=sizes), whole[first:])


def test_it_is_normal():
    sample = draws(0, 1, 4000, shape=(50,)).ravel()
    assert sample.dtype == np.float32
    assert stats.kstest(sample, "norm").pvalue > 0.001
    assert stats.kstest(sample * 1.02, "norm").pvalue < 0.001, "control: the test has the power to see 2 %"


def test_images_seeds_draws_and_pages_are_uncorrelated():
    base = draws(0, 1, 2 * PAGE, shape=(500,))
    others = {
        "image": draws(0, 2, 2 * PAGE, shape=(500,)),
        "seed": draws(1, 1, 2 * PAGE, shape=(500,)),
        "draw": np.roll(base, 1, axis=0),
        "page": np.roll(base, PAGE, axis=0),
        "pixel": np.roll(base, 1, axis=1),
        "high bits of the key": draws(0, 1 + 2**32, 2 * PAGE, shape=(500,)),
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
