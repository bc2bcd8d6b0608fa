"""The tests run with shapes and types checked: control of the import hook in conftest."""

import beartype
import jaxtyping
import numpy as np
import pytest
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Float, TypeCheckError
from sampled_checks import ALWAYS, EVERY

from wobbliness.perturbations.noise.gaussian import Gaussian
from wobbliness.statistics.entropy import plug_in_entropy


def test_a_wrong_shape_is_found_in_the_tests():
    with pytest.raises((TypeCheckError, BeartypeCallHintViolation)):
        Gaussian(0.1).copies(None, np.zeros((2, 2)), 3, np.zeros(3, np.float32))
    assert plug_in_entropy(np.array([[1, 1]])).round(3).tolist() == [0.693], "control"


@jaxtyping.jaxtyped(typechecker=beartype.beartype)
def in_order(values: Float[np.ndarray, " N"]) -> bool:
    return bool((np.diff(values) >= 0).all())


@pytest.mark.parametrize("test", ["one", "another"])
def test_the_first_calls_of_each_test_are_checked_and_some_later_ones(test):
    found = []
    for _ in range(ALWAYS + 2 * EVERY):
        try:
            found.append(in_order(np.zeros((2, 2))))
        except TypeCheckError:
            found.append(None)
    assert found[:ALWAYS] == [None] * ALWAYS, test
    assert found.count(None) == ALWAYS + 2, "one of 64 of those that follow"
