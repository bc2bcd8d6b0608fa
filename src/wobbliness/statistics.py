"""Tests on batches of W, the outlier rule, ROC curves and correlations."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike
from scipy import optimize, special, stats

from wobbliness.entropy import checked_confidence


@dataclass(frozen=True, kw_only=True)
class LeveneTest:
    """Levene's test for equal spread of two batches, with and without the paper's outlier removal."""

    statistic: float
    pvalue: float
    num_removed_clean: int
    num_removed_suspect: int
    statistic_all_points: float
    pvalue_all_points: float


@dataclass(frozen=True, kw_only=True)
class MannWhitneyTest:
    """One-sided rank test: is the suspect batch smoother (W lower) than the clean one?

    `effect_size` is the share of (clean, suspect) pairs in which the suspect W is the lower one, ties counted half:
    0.5 where there is no difference, 1 where every suspect point is smoother.
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
    """A correlation coefficient and the two-sided p-value of no correlation."""

    coefficient: float
    pvalue: float
    num_points: int


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A share of successes with its exact (Clopper-Pearson) interval."""

    num_successes: int
    num_trials: int
    estimate: float
    lower: float
    upper: float


def is_outlier(values: ArrayLike) -> Bool[np.ndarray, " N"]:
    """Outliers by Frigge et al. (Eq. 4): outside [Q25 - 1.5 IQR, Q75 + 1.5 IQR].

    Args:
        values: `(N,)` finite numbers. Where all are equal none is an outlier (section 3.2.4).

    Returns:
        `(N,)` booleans. Where more than three quarters of the values are equal, every other value is an outlier: IQR is 0.
    """
    batch = _batch(values, "a batch", at_least=1)
    lower, upper = _fences(np.sort(batch))
    return (batch > upper) | (batch < lower)


def levene_test(clean_w: ArrayLike, suspect_w: ArrayLike) -> LeveneTest:
    """The paper's batch test (section 3.2.4): do two batches of W differ in spread?

    Levene's test around the median (scipy's default, Brown and Forsythe) after the outliers of each batch are removed, and beside
    it the test on all points. It does not see the sign: a batch that wobbles more is told apart just as well. Two constant
    batches are no evidence: p = 1 (scipy says NaN). Equal to scipy's `levene`, but without its costly argument handling, since
    calibration and controls run it many thousand times.

    Args:
        clean_w: `(N,)` nats, at least 2 values.
        suspect_w: `(M,)` nats, at least 2 values.

    Returns:
        Both tests and the number of points removed from each batch.

    Raises:
        ValueError: a batch is not one-dimensional, not finite, or has fewer than 2 values.
    """
    clean, suspect = _batch(clean_w, "clean W"), _batch(suspect_w, "suspect W")
    (clean_kept, clean_all), (suspect_kept, suspect_all) = _distances(clean), _distances(suspect)
    statistic, pvalue = _levene(clean_kept, suspect_kept)
    statistic_all, pvalue_all = _levene(clean_all, suspect_all)
    return LeveneTest(
        statistic=statistic,
        pvalue=pvalue,
        num_removed_clean=clean.size - clean_kept.size,
        num_removed_suspect=suspect.size - suspect_kept.size,
        statistic_all_points=statistic_all,
        pvalue_all_points=pvalue_all,
    )


def mann_whitney_test(clean_w: ArrayLike, suspect_w: ArrayLike) -> MannWhitneyTest:
    """The directional batch test: is W of the suspect batch lower?

    One-sided Mann-Whitney U. Chosen because batches of W are full of ties at 0 and far from normal, which ranks do not mind, and
    because it needs neither outlier removal nor equal spreads under its null hypothesis of equal distributions. Normal
    approximation with the corrections for ties and continuity, equal to scipy's `mannwhitneyu(method="asymptotic")`; batches that
    are all one value give p = 1.

    Args:
        clean_w: `(N,)` nats, at least 2 values.
        suspect_w: `(M,)` nats, at least 2 values.

    Raises:
        ValueError: a batch is not one-dimensional, not finite, or has fewer than 2 values.
    """
    clean, suspect = _batch(clean_w, "clean W"), _batch(suspect_w, "suspect W")
    num_pairs, num_points = clean.size * suspect.size, clean.size + suspect.size
    _, rank, ties = np.unique(np.concatenate([clean, suspect]), return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(ties) - (ties - 1) / 2
    statistic = float(mean_rank[rank[: clean.size]].sum() - clean.size * (clean.size + 1) / 2)
    tie_loss = float((ties.astype(np.float64) ** 3 - ties).sum()) / (num_points * (num_points - 1))
    std = np.sqrt(num_pairs / 12 * max(num_points + 1 - tie_loss, 0.0))
    pvalue = float(special.ndtr(-(statistic - num_pairs / 2 - 0.5) / std)) if len(ties) > 1 else 1.0
    return MannWhitneyTest(statistic=statistic, pvalue=pvalue, effect_size=statistic / num_pairs)


def roc_curve(is_positive: ArrayLike, scores: ArrayLike, *, confidence: float = 0.95) -> RocCurve:
    """ROC curve of scores that should be higher for positives, with the area under it.

    The interval is Newcombe's (2006, method 5): Hanley and McNeil's variance solved as a score interval. Unlike a bootstrap or
    DeLong's it does not collapse to a point where the separation is perfect.

    Args:
        is_positive: `(N,)` booleans or 0/1, with at least one of each.
        scores: `(N,)` finite numbers; higher speaks for positive.
        confidence: of the interval of the area, in (0, 1).

    Raises:
        ValueError: lengths differ, a class is missing, or a score is not finite.
    """
    positive, score = np.asarray(is_positive).astype(bool), _batch(scores, "scores")
    if positive.shape != score.shape or positive.all() or not positive.any():
        raise ValueError(
            f"expected one score for each of at least one positive and one negative, got {score.size} scores and "
            f"{int(positive.sum())} positives of {positive.size}"
        )
    thresholds = np.unique(score)[::-1]
    true_positives = (score[positive] >= thresholds[:, None]).mean(axis=1)
    false_positives = (score[~positive] >= thresholds[:, None]).mean(axis=1)
    num_positives, num_negatives = int(positive.sum()), int((~positive).sum())
    auc = float(np.trapezoid(np.r_[0.0, true_positives], np.r_[0.0, false_positives]))
    lower, upper = auc_interval(auc, num_positives, num_negatives, confidence=confidence)
    return RocCurve(
        false_positive_rate=np.r_[0.0, false_positives],
        true_positive_rate=np.r_[0.0, true_positives],
        thresholds=np.r_[np.inf, thresholds],
        auc=auc,
        auc_lower=lower,
        auc_upper=upper,
        num_positives=num_positives,
        num_negatives=num_negatives,
    )


def auc_interval(auc: float, num_positives: int, num_negatives: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Newcombe's (2006) method 5: all areas A with |auc - A| <= z sqrt(V(A)), V as Hanley and McNeil's."""
    quantile = float(stats.norm.isf((1 - checked_confidence(confidence)) / 2))
    mean_size = (num_positives + num_negatives) / 2 - 1

    def distance(area: float) -> float:
        spread = 1 + mean_size * ((1 - area) / (2 - area) + area / (1 + area))
        variance = area * (1 - area) * spread / (num_positives * num_negatives)
        return float(abs(auc - area) - quantile * np.sqrt(variance))

    edge = 1e-9  # at 0 and 1 the variance vanishes and the area itself would be found
    lower = optimize.brentq(distance, 0.0, min(auc, 1 - edge)) if distance(0.0) > 0 else 0.0
    upper = optimize.brentq(distance, max(auc, edge), 1.0) if distance(1.0) > 0 else 1.0
    return float(lower), float(upper)


def kendall(x: ArrayLike, y: ArrayLike) -> Correlation:
    """Kendall's tau-b. Raises ValueError where the two differ in length, have fewer than 3 points, or one is constant."""
    first, second = _pair(x, y)
    result = stats.kendalltau(first, second)
    return Correlation(coefficient=float(result.statistic), pvalue=float(result.pvalue), num_points=first.size)


def pearson(x: ArrayLike, y: ArrayLike) -> Correlation:
    """Pearson's r. Raises ValueError where the two differ in length, have fewer than 3 points, or one is constant."""
    first, second = _pair(x, y)
    result = stats.pearsonr(first, second)
    return Correlation(coefficient=float(result.statistic), pvalue=float(result.pvalue), num_points=first.size)


def rate(num_successes: int, num_trials: int, *, confidence: float = 0.95) -> Rate:
    """A binomial share with its exact Clopper-Pearson interval."""
    interval = stats.binomtest(num_successes, num_trials).proportion_ci(checked_confidence(confidence))
    return Rate(
        num_successes=num_successes,
        num_trials=num_trials,
        estimate=num_successes / num_trials,
        lower=float(interval.low),
        upper=float(interval.high),
    )


def _fences(ordered: Float[np.ndarray, " N"]) -> tuple[float, float]:
    """Outside of which Eq. 4 sees outliers. Of sorted values, since one sort serves quartiles and medians."""
    lower, upper = _quantile(ordered, 0.25), _quantile(ordered, 0.75)
    reach = 1.5 * (upper - lower)
    return lower - reach, upper + reach


def _quantile(ordered: Float[np.ndarray, " N"], share: float) -> float:
    """Equal to numpy's, which takes 30 times as long for a batch of this size."""
    index, fraction = divmod(share * (ordered.size - 1), 1)
    below, above = ordered[int(index)], ordered[min(int(index) + 1, ordered.size - 1)]
    step = above - below
    return float(above - step * (1 - fraction) if fraction >= 0.5 else below + step * fraction)


def _distances(batch: Float[np.ndarray, " N"]) -> tuple[Float[np.ndarray, " K"], Float[np.ndarray, " N"]]:
    """Distances from the median: of what is left without outliers from its own, and of all."""
    ordered = np.sort(batch)
    lower, upper = _fences(ordered)
    kept = batch[(batch >= lower) & (batch <= upper)]
    left = ordered[np.searchsorted(ordered, lower, "left") : np.searchsorted(ordered, upper, "right")]
    return np.abs(kept - _quantile(left, 0.5)), np.abs(batch - _quantile(ordered, 0.5))


def _levene(clean: Float[np.ndarray, " N"], suspect: Float[np.ndarray, " M"]) -> tuple[float, float]:
    """Statistic and p-value: one-way analysis of variance of the distances from each batch's median."""
    num_points = clean.size + suspect.size
    clean_mean, suspect_mean = np.add.reduce(clean) / clean.size, np.add.reduce(suspect) / suspect.size
    pooled_mean = np.add.reduce(np.concatenate((clean, suspect))) / num_points
    between = clean.size * (clean_mean - pooled_mean) ** 2 + suspect.size * (suspect_mean - pooled_mean) ** 2
    if between == 0:  # also 0 / 0: all points equally far from their medians
        return 0.0, 1.0
    within = np.add.reduce((clean - clean_mean) ** 2) + np.add.reduce((suspect - suspect_mean) ** 2)
    statistic = float(between / within * (num_points - 2)) if within > 0 else np.inf
    return statistic, float(special.fdtrc(1, num_points - 2, statistic))


def _batch(values: ArrayLike, name: str, *, at_least: int = 2) -> Float[np.ndarray, " N"]:
    batch = np.asarray(values, dtype=np.float64)
    if batch.ndim != 1 or batch.size < at_least:
        raise ValueError(f"expected {name} as one axis of at least {at_least} values, got shape {batch.shape}")
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
