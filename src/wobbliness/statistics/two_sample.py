"""Tests on batches of W, the outlier rule, ROC curves and correlations."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike
from scipy import optimize, stats

from wobbliness.statistics.entropy import checked_confidence
from wobbliness.statistics.row_tests import fences, levene_rows, mann_whitney_rows


@dataclass(frozen=True, kw_only=True)
class LeveneTest:
    """Levene's test for equal spread, with and without the paper's outlier removal."""

    statistic: float
    pvalue: float
    num_removed_clean: int
    num_removed_suspect: int
    statistic_all_points: float
    pvalue_all_points: float


@dataclass(frozen=True, kw_only=True)
class MannWhitneyTest:
    """One-sided rank test: is the suspect batch smoother (W lower) than the clean one?

    `effect_size` is the share of (clean, suspect) pairs in which the suspect W is the lower one,
    ties counted half: 0.5 where there is no difference, 1 where every suspect point is smoother.
    """

    statistic: float
    pvalue: float
    effect_size: float


@dataclass(frozen=True, kw_only=True, eq=False)
class RocCurve:
    """Receiver operating characteristic with its area and a confidence interval of that area."""

    false_positive_rate: Float[np.ndarray, " T"]
    true_positive_rate: Float[np.ndarray, " T"]
    thresholds: Float[np.ndarray, " T"]
    auc: float
    auc_lower: float
    auc_upper: float
    num_positives: int
    num_negatives: int


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """Correlation coefficient and the two-sided p-value of no correlation."""

    coefficient: float
    pvalue: float
    num_points: int


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Share of successes with its exact (Clopper-Pearson) interval."""

    num_successes: int
    num_trials: int
    estimate: float
    lower: float
    upper: float


def is_outlier(values: ArrayLike) -> Bool[np.ndarray, " N"]:
    """Marks outliers by Frigge et al. (Eq. 4): outside [Q25 - 1.5 IQR, Q75 + 1.5 IQR].

    Args:
        values: `(N,)` finite numbers. Where all are equal none is an outlier (section 3.2.4).

    Returns:
        `(N,)` booleans. Where more than three quarters of the values are equal, every other value
        is an outlier: IQR is 0.
    """
    batch = _batch(values, "a batch", at_least=1)
    lower, upper = fences(np.sort(batch)[None])
    return (batch > upper) | (batch < lower)


def levene_test(clean_w: ArrayLike, suspect_w: ArrayLike) -> LeveneTest:
    """Tests whether two batches of W differ in spread: the paper's batch test (section 3.2.4).

    Levene's test around the median (scipy's default, Brown and Forsythe) after the outliers of each
    batch are removed, and for comparison the test on all points. It does not see the sign: a batch
    that wobbles more is told apart just as well. Two constant batches are no evidence: p = 1 (scipy
    says NaN).

    Args:
        clean_w: `(N,)` nats, at least 2 values.
        suspect_w: `(M,)` nats, at least 2 values.

    Returns:
        Both tests and the number of points removed from each batch.

    Raises:
        ValueError: a batch is not one-dimensional, not finite, or has fewer than 2 values.
    """
    clean, suspect = _batch(clean_w, "clean W"), _batch(suspect_w, "suspect W")
    found = levene_rows(clean[None], suspect[None])
    return LeveneTest(
        statistic=float(found.statistic[0]),
        pvalue=float(found.pvalue[0]),
        num_removed_clean=int(found.num_removed_clean[0]),
        num_removed_suspect=int(found.num_removed_suspect[0]),
        statistic_all_points=float(found.statistic_all_points[0]),
        pvalue_all_points=float(found.pvalue_all_points[0]),
    )


def mann_whitney_test(clean_w: ArrayLike, suspect_w: ArrayLike) -> MannWhitneyTest:
    """Tests whether W of the suspect batch is lower: the directional batch test.

    One-sided Mann-Whitney U. Chosen because batches of W are full of ties at 0 and far from normal,
    which ranks do not mind, and because it needs neither outlier removal nor equal spreads under
    its null hypothesis of equal distributions. Normal approximation with the corrections for ties
    and continuity, equal to scipy's `mannwhitneyu(method="asymptotic")`; batches that are all one
    value give p = 1.

    Args:
        clean_w: `(N,)` nats, at least 2 values.
        suspect_w: `(M,)` nats, at least 2 values.

    Raises:
        ValueError: a batch is not one-dimensional, not finite, or has fewer than 2 values.
    """
    clean, suspect = _batch(clean_w, "clean W"), _batch(suspect_w, "suspect W")
    found = mann_whitney_rows(clean[None], suspect[None])
    statistic = float(found.statistic[0])
    return MannWhitneyTest(
        statistic=statistic,
        pvalue=float(found.pvalue[0]),
        effect_size=statistic / (clean.size * suspect.size),
    )


def roc_curve(is_positive: ArrayLike, scores: ArrayLike, *, confidence: float = 0.95) -> RocCurve:
    """Computes the ROC curve of scores that should be higher for positives, with its area.

    The interval is Newcombe's (2006, method 5): Hanley and McNeil's variance solved as a score
    interval. Unlike a bootstrap or DeLong's it does not collapse to a point where the separation is
    perfect.

    Args:
        is_positive: `(N,)` booleans or 0/1, with at least one of each.
        scores: `(N,)` finite numbers; higher speaks for positive.
        confidence: of the interval of the area, in (0, 1).

    Raises:
        ValueError: lengths differ, a class is missing, or a score is not finite.
    """
    positive, score = np.asarray(is_positive).astype(bool), _batch(scores, "scores")
    _check_both_classes(positive, score)
    thresholds = np.unique(score)[::-1]
    # Both rates start at 0, above the highest score.
    true_positives = np.r_[0.0, _rates(score[positive], thresholds)]
    false_positives = np.r_[0.0, _rates(score[~positive], thresholds)]
    # Area under the curve from (0, 0), by the trapezoidal rule: ties count half.
    auc = float(np.trapezoid(true_positives, false_positives))
    sizes = {"num_positives": int(positive.sum()), "num_negatives": int((~positive).sum())}
    lower, upper = auc_interval(auc, **sizes, confidence=confidence)
    return RocCurve(
        false_positive_rate=false_positives,
        true_positive_rate=true_positives,
        thresholds=np.r_[np.inf, thresholds],
        auc=auc,
        auc_lower=lower,
        auc_upper=upper,
        **sizes,
    )


def _check_both_classes(positive: Bool[np.ndarray, "..."], score: Float[np.ndarray, " N"]) -> None:
    if positive.shape != score.shape or positive.all() or not positive.any():
        raise ValueError(
            "expected one score for each of at least one positive and one negative, got "
            f"{score.size} scores and "
            f"{int(positive.sum())} positives of {positive.size}"
        )


def _rates(
    scores: Float[np.ndarray, " N"], thresholds: Float[np.ndarray, " T"]
) -> Float[np.ndarray, " T"]:
    """Computes the share of scores at or above each threshold."""
    return np.asarray((scores >= thresholds[:, None]).mean(axis=1))


def auc_interval(
    auc: float, num_positives: int, num_negatives: int, *, confidence: float = 0.95
) -> tuple[float, float]:
    """Computes an interval of the area under the ROC curve by Newcombe's (2006) method 5.

    All areas A with |auc - A| <= z sqrt(V(A)), V as Hanley and McNeil's.
    """
    quantile = float(stats.norm.isf((1 - checked_confidence(confidence)) / 2))
    mean_size = (num_positives + num_negatives) / 2 - 1

    # Newcombe inverts the test: the limits are the areas that are just not rejected.
    # Positive where the area is rejected: |auc - area| exceeds z standard errors at that area.
    def distance(area: float) -> float:
        spread = 1 + mean_size * ((1 - area) / (2 - area) + area / (1 + area))
        variance = area * (1 - area) * spread / (num_positives * num_negatives)
        return float(abs(auc - area) - quantile * np.sqrt(variance))

    edge = 1e-9  # at 0 and 1 the variance vanishes and the area itself would be found
    lower = optimize.brentq(distance, 0.0, min(auc, 1 - edge)) if distance(0.0) > 0 else 0.0
    upper = optimize.brentq(distance, max(auc, edge), 1.0) if distance(1.0) > 0 else 1.0
    return float(lower), float(upper)


def kendall(x: ArrayLike, y: ArrayLike) -> Correlation:
    """Computes Kendall's tau-b.

    Raises: ValueError where the two differ in length, have fewer than 3 points, or one is constant.
    """
    first, second = _pair(x, y)
    result = stats.kendalltau(first, second)
    return Correlation(
        coefficient=float(result.statistic), pvalue=float(result.pvalue), num_points=first.size
    )


def pearson(x: ArrayLike, y: ArrayLike) -> Correlation:
    """Computes Pearson's r.

    Raises: ValueError where the two differ in length, have fewer than 3 points, or one is constant.
    """
    first, second = _pair(x, y)
    result = stats.pearsonr(first, second)
    return Correlation(
        coefficient=float(result.statistic), pvalue=float(result.pvalue), num_points=first.size
    )


def rate(num_successes: int, num_trials: int, *, confidence: float = 0.95) -> Rate:
    """Computes a binomial share with its exact Clopper-Pearson interval."""
    interval = stats.binomtest(num_successes, num_trials).proportion_ci(
        checked_confidence(confidence)
    )
    return Rate(
        num_successes=num_successes,
        num_trials=num_trials,
        estimate=num_successes / num_trials,
        lower=float(interval.low),
        upper=float(interval.high),
    )


def _batch(values: ArrayLike, name: str, *, at_least: int = 2) -> Float[np.ndarray, " N"]:
    batch = np.asarray(values, dtype=np.float64)
    if batch.ndim != 1 or batch.size < at_least:
        raise ValueError(
            f"expected {name} as one axis of at least {at_least} values, got shape {batch.shape}"
        )
    if not np.isfinite(batch).all():
        raise ValueError(f"expected {name} to be finite, got {batch[~np.isfinite(batch)][0]}")
    return batch


def _pair(x: ArrayLike, y: ArrayLike) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    first, second = _batch(x, "x", at_least=3), _batch(y, "y", at_least=3)
    if first.size != second.size:
        raise ValueError(f"expected x and y of equal length, got {first.size} and {second.size}")
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        raise ValueError("expected x and y to vary, got a constant")
    return first, second
