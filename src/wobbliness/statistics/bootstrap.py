"""Percentile bootstrap intervals (Efron 1979) of the areas and correlations that a study reports.

Written out, since `scipy.stats.bootstrap` gives no number where a single resample is degenerate;
and for all resamples at a time, by how often each value was drawn.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

RESAMPLES = 1000


def auc_bootstrap(
    is_positive: ArrayLike, scores: ArrayLike, *, seed: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Computes an interval of the area under the ROC curve, resampling each class by itself.

    It collapses to a point where the separation is perfect;
    `wobbliness.statistics.two_sample.auc_interval` does not.

    Args:
        is_positive: `(N,)` booleans, at least one of each.
        scores: `(N,)`, higher for positives.
        seed: of the resamples.
        confidence: in (0, 1).
    """
    positive, score = np.asarray(is_positive, bool), np.asarray(scores, float)
    higher, lower = score[positive], score[~positive]
    drawn_higher, drawn_lower = _counts_of_both(higher.size, lower.size, seed)
    # The area is the mean win over all pairs, each pair weighted by how often both were drawn.
    wins = np.sign(higher[:, None] - lower[None]) + 1  # 2 for a pair in order, 1 for a tie
    areas = ((drawn_higher @ wins) * drawn_lower).sum(axis=1) / 2 / higher.size / lower.size
    return _interval(areas, confidence)


def kendall_bootstrap(
    x: ArrayLike, y: ArrayLike, *, seed: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Computes an interval of Kendall's tau-b from resampled pairs.

    A resample in which one side is constant counts as 0.

    Takes memory for N * N pairs.
    """
    first, second = np.asarray(x, float), np.asarray(y, float)
    chosen = _chosen_pairs(first.size, seed)
    # counts[r, i]: how often resample r holds pair i.
    counts = np.apply_along_axis(np.bincount, 1, chosen, minlength=first.size).astype(float)
    # Tau-b from the sign of every pair's order on both sides; weights are the resampled counts.
    orders = [np.sign(np.subtract.outer(side, side)) for side in (first, second)]
    # Concordant less discordant pairs, and the pairs without a tie on each side: c' M c.
    agreeing, first_pairs, second_pairs = (
        ((counts @ pairs) * counts).sum(axis=1)
        for pairs in (orders[0] * orders[1], orders[0] ** 2, orders[1] ** 2)
    )
    return _interval(_ratio(agreeing, first_pairs, second_pairs), confidence)


def pearson_bootstrap(
    x: ArrayLike, y: ArrayLike, *, seed: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Computes an interval of Pearson's r, as `kendall_bootstrap`."""
    chosen = _chosen_pairs(np.size(x), seed)
    first, second = (np.asarray(side, float)[chosen] for side in (x, y))
    # A resample may hold a single value again and again; rounding would hide its zero variance.
    constant = (np.ptp(first, axis=1) == 0) | (np.ptp(second, axis=1) == 0)
    first, second = (side - side.mean(axis=1, keepdims=True) for side in (first, second))
    coefficients = _ratio(
        (first * second).sum(axis=1), (first**2).sum(axis=1), (second**2).sum(axis=1)
    )
    return _interval(np.where(constant, 0.0, coefficients), confidence)


@lru_cache(maxsize=1)  # a study asks for one size again and again: each test, at each sigma
def _counts_of_both(num_higher: int, num_lower: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns how often each resample holds each positive and each negative.

    The arrays are read-only, since callers share them.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    sides = tuple(np.empty((RESAMPLES, size)) for size in (num_higher, num_lower))
    for index in range(RESAMPLES):
        for counts in sides:
            size = counts.shape[1]
            # Both sides are drawn in turn from one stream, so the order of the draws is fixed.
            counts[index] = np.bincount(rng.integers(size, size=size), minlength=size)
    for counts in sides:
        counts.setflags(write=False)
    return sides[0], sides[1]


def _chosen_pairs(num_pairs: int, seed: int) -> np.ndarray:
    """Returns the indices of the pairs of each resample."""
    return np.random.default_rng(np.random.SeedSequence(seed)).integers(
        num_pairs, size=(RESAMPLES, num_pairs)
    )


def _ratio(together: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Computes a coefficient from the joint sum and each side's own; 0 where one side has none."""
    alone = np.sqrt(first * second)
    return np.asarray(np.divide(together, alone, out=np.zeros_like(alone), where=alone > 0))


def _interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    lower, upper = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(lower), float(upper)
