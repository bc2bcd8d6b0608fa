"""Percentile bootstrap intervals (Efron 1979) of the areas and correlations that a study reports.

Written out, since `scipy.stats.bootstrap` gives no number where a single resample is degenerate.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

RESAMPLES = 1000


def auc_bootstrap(is_positive: ArrayLike, scores: ArrayLike, *, seed: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of the area under the ROC curve; positives and negatives are drawn again by themselves.

    It collapses to a point where the separation is perfect; `wobbliness.statistics.auc_interval` does not.

    Args:
        is_positive: `(N,)` booleans, at least one of each.
        scores: `(N,)`, higher for positives.
        seed: of the resamples.
        confidence: in (0, 1).
    """
    positive, score = np.asarray(is_positive, bool), np.asarray(scores, float)
    ranks = stats.rankdata(score)  # only their order counts, and small integers sort fast
    return _interval((ranks[positive], ranks[~positive]), _auc, paired=False, seed=seed, confidence=confidence)


def kendall_bootstrap(x: ArrayLike, y: ArrayLike, *, seed: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of Kendall's tau-b, pairs drawn again; a resample in which one side is constant counts as 0."""
    return _interval((x, y), lambda a, b: _or_zero(stats.kendalltau, a, b), paired=True, seed=seed, confidence=confidence)


def pearson_bootstrap(x: ArrayLike, y: ArrayLike, *, seed: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of Pearson's r, as `kendall_bootstrap`."""
    return _interval((x, y), lambda a, b: _or_zero(stats.pearsonr, a, b), paired=True, seed=seed, confidence=confidence)


def _interval(
    samples: tuple[ArrayLike, ArrayLike], statistic: Callable[..., float], *, paired: bool, seed: int, confidence: float
) -> tuple[float, float]:
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    arrays = tuple(np.asarray(sample, float) for sample in samples)
    means = np.empty(RESAMPLES)
    for index in range(RESAMPLES):
        if paired:
            chosen = rng.integers(arrays[0].size, size=arrays[0].size)
            means[index] = statistic(arrays[0][chosen], arrays[1][chosen])
        else:
            means[index] = statistic(*(array[rng.integers(array.size, size=array.size)] for array in arrays))
    lower, upper = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(lower), float(upper)


def _auc(positives: np.ndarray, negatives: np.ndarray) -> float:
    ordered = np.sort(negatives)
    below, up_to = np.searchsorted(ordered, positives, "left"), np.searchsorted(ordered, positives, "right")
    return float((below + up_to).sum() / 2 / positives.size / negatives.size)


def _or_zero(measure: Callable[..., tuple[float, float]], x: np.ndarray, y: np.ndarray) -> float:
    return 0.0 if np.ptp(x) == 0 or np.ptp(y) == 0 else float(measure(x, y)[0])
