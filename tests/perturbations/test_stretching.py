"""Compiled contrast and scaling: equal to the bit to the same steps of numpy."""

import numpy as np
import pytest

from wobbliness.perturbations import Contrast, Scale
from wobbliness.perturbations.base import Scratch, Stream


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (2, 5, 7)])
def test_copies_are_those_of_plain_steps(shape):
    rng = np.random.default_rng(0)
    image = rng.random(shape, dtype=np.float32)
    levels = (0.0, 0.15, 0.75, 1.0, 3.0, 11.0)
    factors = np.array(levels, np.float32)[:, None, None, None]
    mean = np.add.reduce(image.reshape(shape[0], -1), axis=1) / np.float32(shape[1] * shape[2])
    centred = image - mean[:, None, None]
    expected = {
        Contrast(*levels): np.clip(factors * centred + mean[:, None, None], 0, 1),
        Scale(*levels): np.clip(factors * image, 0, 1),
    }
    for made, copies in expected.items():
        out = np.full((4, *shape), np.nan, np.float32)
        # a page of four draws that begins at the third
        made.copies(Stream(0, 1, first_draw=2, scratch=Scratch()), image, 4, out)
        assert np.array_equal(out, copies[2:])
    assert not np.array_equal(*(copies[2:] for copies in expected.values()))
