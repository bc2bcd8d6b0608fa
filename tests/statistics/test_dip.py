"""The dip: known values, a linear program, invariance, and the level of its test."""

import numpy as np
import pytest
from scipy.optimize import linprog

from wobbliness.statistics.dip import LIMITS, SIZES, dip, has_several_modes

# by Maechler's `diptest` of R, as its port for Python has it
OF_OTHERS = {"one mode": 0.03726026607002296, "two modes": 0.07891998427524638}


def samples():
    normal = np.random.default_rng(5).normal(size=60)
    return {"one mode": normal, "two modes": normal + 5 * (np.arange(60) % 3 > 0)}


@pytest.mark.parametrize("name", OF_OTHERS)
def test_values_of_an_independent_implementation(name):
    assert dip(samples()[name]) == pytest.approx(OF_OTHERS[name], abs=1e-12)


def by_linear_program(values):
    """The smallest d over all modes: heights convex up to the mode, concave from it on."""
    x = np.sort(values)
    return min(_with_mode_at(x, mode) for mode in range(len(x)))


def _with_mode_at(x, mode):
    # heights up to the mode, those from it on, where the law may jump, and the distance
    place, number = [*range(mode + 1), *range(mode, len(x))], len(x)
    rows, limits = [], []

    def require(coefficients, limit):
        row = np.zeros(len(place) + 1)
        row[list(coefficients)] = list(coefficients.values())
        rows.append(row)
        limits.append(limit)

    for at, own in enumerate(place):
        # the empirical law jumps as well: at the mode both sides are near one height each
        least = own if at == mode else own + 1
        most = own + 1 if at == mode + 1 else own
        require({at: -1, len(place): -1}, -least / number)
        require({at: 1, len(place): -1}, most / number)
        if at:
            require({at - 1: 1, at: -1}, 0)
    for start, stop, sign in ((0, mode + 1, 1), (mode + 1, len(place), -1)):
        for at in range(start, stop - 2):
            one, two = np.diff(x[place[at : at + 3]])
            bend = {at: -1 / one, at + 1: 1 / one + 1 / two, at + 2: -1 / two}
            require({row: sign * value for row, value in bend.items()}, 0)
    cost = np.zeros(len(place) + 1)
    cost[-1] = 1
    return linprog(cost, A_ub=np.array(rows), b_ub=limits, bounds=(0, 1)).fun


@pytest.mark.parametrize("seed", range(8))
def test_it_is_the_distance_to_the_nearest_law_of_one_mode(seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=5 + 2 * seed) + 4 * (rng.random(5 + 2 * seed) < 0.4)
    assert dip(values) == pytest.approx(by_linear_program(values), abs=1e-9)


def test_it_depends_on_order_place_and_unit_no_more_than_a_mode_does():
    values = samples()["two modes"]
    for other in (values[::-1], 3 * values + 7, -values, np.repeat(values, 2)):
        assert dip(other) == pytest.approx(dip(values), abs=1e-12)
    assert dip(np.arange(40)) == pytest.approx(1 / 80), "as even as can be"
    with pytest.raises(ValueError, match="at least 2 different values, got 1"):
        dip([1.0, 1.0])


@pytest.mark.parametrize("number", [40, 300])
def test_the_level_is_held_and_two_modes_are_found(number):
    """Of laws with one mode at most 1 %, and of the uniform one about that; two far modes."""
    rng = np.random.default_rng(number)
    uniform = [has_several_modes(rng.random(number)) for _ in range(400)]
    normal = [has_several_modes(rng.normal(size=number)) for _ in range(100)]
    assert sum(uniform) <= 11, "the 99.9 % point of 400 at 1 %"
    assert sum(normal) == 0
    far = rng.normal(size=number) + 6 * (np.arange(number) % 2)
    assert has_several_modes(far)
    assert not has_several_modes(far[far < 3]), "control"
    assert not has_several_modes([0, 0, 0, 1, 1]), "too few to tell"


def test_the_limits_ascend():
    assert list(SIZES) == sorted(SIZES)
    assert list(LIMITS) == sorted(LIMITS)
