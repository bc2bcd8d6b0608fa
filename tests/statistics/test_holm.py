"""Holm's correction: the step-down procedure, and the error that it controls."""

import hypothesis
import numpy as np
from hypothesis import strategies
from scipy import stats

from wobbliness.statistics.holm import holm_pvalues

PVALUES = strategies.lists(strategies.floats(0, 1), min_size=1, max_size=6)


def rejected(pvalues, level):
    """The hypotheses that the procedure rejects, one after another, as Holm (1979) states it."""
    found, left = set(), len(pvalues)
    for place in np.argsort(pvalues, kind="stable"):
        if pvalues[place] > level / left:
            break
        found.add(int(place))
        left -= 1
    return found


@hypothesis.given(PVALUES, strategies.sampled_from([0.01, 0.05, 0.2]))
def test_at_most_the_level_is_what_the_procedure_rejects(pvalues, level):
    corrected = holm_pvalues(pvalues)
    # a p-value on a limit may round to either side
    at_limit = [np.isclose(p * factor, level) for p in pvalues for factor in range(1, 7)]
    hypothesis.assume(not any(at_limit))
    assert set(np.flatnonzero(corrected <= level).tolist()) == rejected(pvalues, level)


@hypothesis.given(PVALUES)
def test_the_smallest_is_bonferronis_and_none_is_larger(pvalues):
    corrected, bonferroni = holm_pvalues(pvalues), np.minimum(np.multiply(pvalues, len(pvalues)), 1)
    assert corrected.min() == bonferroni.min()
    assert (corrected <= bonferroni).all()
    assert (corrected >= pvalues).all()


def test_one_test_needs_no_correction():
    assert holm_pvalues([0.3]).tolist() == [0.3]


def test_false_rejections_hold_the_level_where_the_tests_are_alike():
    """Both tests of the same data are as dependent as can be; independent ones use the level."""
    rng, level, trials = np.random.default_rng(0), 0.1, 4000
    same = rng.random(trials).repeat(2).reshape(-1, 2)
    apart = rng.random((trials, 2))
    for pvalues, share in ((same, level / 2), (apart, 1 - (1 - level / 2) ** 2)):
        num_false = sum(holm_pvalues(pair).min() <= level for pair in pvalues)
        assert stats.binomtest(num_false, trials, share).pvalue > 1e-3
