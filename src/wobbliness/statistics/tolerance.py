"""Tolerance limits by order statistics, and exact bounds of a binomial share."""

import math

import numpy as np
from jaxtyping import Float
from scipy import special

from wobbliness.statistics.entropy import checked_confidence


def values_needed(share: float, confidence: float) -> int:
    """Returns the least number of values whose largest one is an upper tolerance limit.

    The least n with (1 - share)^n <= 1 - confidence (Wilks 1941).
    """
    return math.ceil(math.log(1 - confidence) / math.log1p(-share))


def upper_tolerance_limit(
    values: Float[np.ndarray, " n"], *, share: float, confidence: float
) -> float | None:
    """Returns a limit that at most a share of the distribution of the values lies above.

    With the stated confidence, for any distribution (Wilks 1941): the order statistic that has r
    values above it, with the largest r for which a binomial number of n values of probability
    `share` is at most r with probability 1 - confidence at most.

    The values may also come from several distributions, each with the same number of them. The
    limit then holds for their mixture in equal parts: numbers of values above a quantile of the
    mixture vary less than the binomial one (Hoeffding 1956, where r is at most n share - 1).

    Args:
        values: minus infinity for what need not lie below any limit.
        share: in (0, 1).
        confidence: in (0, 1).

    Returns:
        The limit; None where there are too few values to show one.
    """
    num_values = len(values)
    numbers = np.arange(math.ceil(num_values * share) + 1)
    # Probabilities that at most so many values lie above the quantile, ascending.
    at_most = special.bdtr(numbers, num_values, share)
    num_above = int(np.searchsorted(at_most, 1 - confidence, side="right")) - 1
    if num_above < 0:
        return None
    place = num_values - 1 - num_above
    return float(np.partition(values, place)[place])


def binomial_lower_bound(num_hits: int, num_trials: int, confidence: float) -> float:
    """Computes the one-sided Clopper-Pearson lower bound of a share."""
    error = 1 - checked_confidence(confidence)
    if num_hits == 0:
        return 0.0
    return float(special.betaincinv(num_hits, num_trials - num_hits + 1, error))


def binomial_upper_bound(num_hits: int, num_trials: int, confidence: float) -> float:
    """Computes the one-sided Clopper-Pearson upper bound of a share; 1 without a trial."""
    checked = checked_confidence(confidence)
    if num_hits == num_trials:
        return 1.0
    return float(special.betaincinv(num_hits + 1, num_trials - num_hits, checked))
