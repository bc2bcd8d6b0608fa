"""Correction of p-values for the number of tests."""

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike


def holm_pvalues(pvalues: ArrayLike) -> Float[np.ndarray, " T"]:
    """Corrects the p-values of several tests (Holm 1979), however they depend on each other.

    With p_(1) <= ... <= p_(T) it is max over j <= i of min(1, (T - j + 1) p_(j)) for the i-th. The
    probability that any true null hypothesis gets one of at most a level is at most the level. The
    smallest is that of Bonferroni, and no other is larger than his.

    >>> holm_pvalues([0.03, 0.01]).tolist()
    [0.03, 0.02]

    Args:
        pvalues: `(T,)` in [0, 1].
    """
    given = np.asarray(pvalues, np.float64)
    order = np.argsort(given, kind="stable")
    # The smallest counts for all tests, the next one for those that are left.
    scaled = np.minimum(given[order] * np.arange(len(given), 0, -1), 1)
    corrected = np.empty_like(scaled)
    corrected[order] = np.maximum.accumulate(scaled)
    return corrected
