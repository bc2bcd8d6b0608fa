"""The tests run with shapes and types checked: control of the import hook in conftest."""

import numpy as np
import pytest
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import TypeCheckError

from wobbliness.perturbations.gaussian import Gaussian
from wobbliness.statistics.entropy import plug_in_entropy


def test_a_wrong_shape_is_found_in_the_tests():
    with pytest.raises((TypeCheckError, BeartypeCallHintViolation)):
        Gaussian(0.1).copies(None, np.zeros((2, 2)), 3, np.zeros(3, np.float32))
    assert plug_in_entropy(np.array([[1, 1]])).round(3).tolist() == [0.693], "control"
