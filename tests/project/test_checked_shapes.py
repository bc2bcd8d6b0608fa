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


def adding(number):
    @jaxtyping.jaxtyped(typechecker=beartype.beartype)
    def add(values: Float[np.ndarray, " N"], *, again: bool = False) -> Float[np.ndarray, " N"]:
        return add(values + number) if again else values + number

    @jaxtyping.jaxtyped(typechecker=beartype.beartype)
    def add_once(values: Float[np.ndarray, " N"], times: int) -> Float[np.ndarray, " N"]:
        return add_once(values + number, times - 1) if times else values

    return add, add_once


def test_each_definition_of_an_inner_function_is_checked_and_called_itself():
    values = np.zeros(2)
    both = [adding(number) for number in range(ALWAYS - 1)]
    for number, (add, add_once) in enumerate(both):
        assert add(values).tolist() == [number] * 2
        assert add(values, again=True).tolist() == [2 * number] * 2
        assert add_once(values, 3).tolist() == [3 * number] * 2
    for _, add_once in (adding(1), both[0]):
        found = []
        for _ in range(EVERY):
            try:
                found.append(add_once(np.zeros((2, 2)), 0).shape)
            except TypeCheckError:
                found.append(None)
        assert None in found, "control: also of a definition whose checks others compiled"
