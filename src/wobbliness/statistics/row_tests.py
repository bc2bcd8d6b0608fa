"""The batch tests for many pairs of batches at a time, one pair in each row.

The choice of sigma and the controls need thousands.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import special

FENCE_REACH = 1.5
"""Interquartile ranges from a quartile beyond which a value is an outlier (Eq. 4)."""


class LeveneRows(NamedTuple):
    """Levene's test of each row, after outlier removal and on all points."""

    statistic: Float[np.ndarray, " B"]
    pvalue: Float[np.ndarray, " B"]
    num_removed_clean: Int[np.ndarray, " B"]
    num_removed_suspect: Int[np.ndarray, " B"]
    statistic_all_points: Float[np.ndarray, " B"]
    pvalue_all_points: Float[np.ndarray, " B"]


class MannWhitneyRows(NamedTuple):
    """The one-sided rank test of each row: U of the clean batch, and p."""

    statistic: Float[np.ndarray, " B"]
    pvalue: Float[np.ndarray, " B"]


class _Distances(NamedTuple):
    """Distances from the row's median.

    Of all points; and, without outliers, of those kept from their own median.
    """

    of_all: Float[np.ndarray, "B N"]
    of_kept: Float[np.ndarray, "B N"]
    is_kept: Bool[np.ndarray, "B N"]


def levene_rows(
    clean_w: Float[np.ndarray, "B N"], suspect_w: Float[np.ndarray, "B M"]
) -> LeveneRows:
    """Computes Levene's test around the median for each row.

    As `wobbliness.statistics.two_sample.levene_test` describes it.

    Args:
        clean_w: `(B, N)` nats, finite, N at least 2.
        suspect_w: `(B, M)` nats, finite, M at least 2.
    """
    clean, suspect = _distances(clean_w), _distances(suspect_w)
    statistic, pvalue = _variance_analysis(
        clean.of_kept, suspect.of_kept, clean.is_kept, suspect.is_kept
    )
    all_clean, all_suspect = np.ones_like(clean.is_kept), np.ones_like(suspect.is_kept)
    return LeveneRows(
        statistic,
        pvalue,
        np.sum(~clean.is_kept, axis=1),
        np.sum(~suspect.is_kept, axis=1),
        *_variance_analysis(clean.of_all, suspect.of_all, all_clean, all_suspect),
    )


def mann_whitney_rows(
    clean_w: Float[np.ndarray, "B N"], suspect_w: Float[np.ndarray, "B M"]
) -> MannWhitneyRows:
    """Computes the directional test for each row.

    As `wobbliness.statistics.two_sample.mann_whitney_test` describes it.

    Args:
        clean_w: `(B, N)` nats, finite.
        suspect_w: `(B, M)` nats, finite.
    """
    pooled = np.concatenate([clean_w, suspect_w], axis=1)
    num_clean, num_points = clean_w.shape[1], pooled.shape[1]
    num_pairs = num_clean * (num_points - num_clean)
    order = np.argsort(pooled, axis=1)
    first, last = _ties(np.take_along_axis(pooled, order, axis=1))
    # The mean rank of a tie, from 1, is (first + last + 2) / 2.
    rank_sum = np.sum(first + last + 2, axis=1, where=order < num_clean) / 2
    # U of the clean batch: its rank sum less the least possible one.
    statistic = rank_sum - num_clean * (num_clean + 1) / 2
    ties = last - first + 1.0  # points that share the value
    is_constant = ties[:, 0] == num_points
    # Standard deviation of U under the null hypothesis; any for constant rows, whose p is 1.
    std = np.sqrt(num_pairs / 12 * np.where(is_constant, 1.0, num_points + 1 - _tie_loss(ties)))
    # Normal approximation, with the correction for continuity.
    pvalue = special.ndtr(-(statistic - num_pairs / 2 - 0.5) / std)
    return MannWhitneyRows(statistic, np.where(is_constant, 1.0, pvalue))


def _tie_loss(ties: Float[np.ndarray, "B N"]) -> Float[np.ndarray, " B"]:
    """Computes by how much ties lower N + 1 in the variance of U."""
    num_points = ties.shape[1]
    # Summed over the points of a tie of t, ties^2 - 1 adds up to t^3 - t, as in the formula.
    return np.asarray((np.sum(ties * ties, axis=1) - num_points) / (num_points * (num_points - 1)))


def _ties(
    ordered: Float[np.ndarray, "B N"],
) -> tuple[Int[np.ndarray, "B N"], Int[np.ndarray, "B N"]]:
    """Returns the first and last place, from 0, of the values equal to each in its sorted row."""
    size = ordered.shape[1]
    place, is_step = np.arange(size), ordered[:, 1:] != ordered[:, :-1]
    first, last = np.zeros(ordered.shape, int), np.full(ordered.shape, size - 1)
    # The place of the last step up to here, and from the other end of the next one.
    first[:, 1:] = np.maximum.accumulate(place[1:] * is_step, axis=1)
    last[:, :-1] = np.minimum.accumulate(np.where(is_step, place[:-1], size - 1)[:, ::-1], axis=1)[
        :, ::-1
    ]
    return first, last


def fences(
    ordered: Float[np.ndarray, "B N"],
) -> tuple[Float[np.ndarray, " B"], Float[np.ndarray, " B"]]:
    """Returns the limits of Eq. 4, outside of which a value is an outlier, for sorted rows."""
    lower, upper = _quantile(ordered, 0.25), _quantile(ordered, 0.75)
    reach = FENCE_REACH * (upper - lower)
    return lower - reach, upper + reach


def _distances(batches: Float[np.ndarray, "B N"]) -> _Distances:
    ordered = np.sort(batches, axis=1)
    lower, upper = fences(ordered)
    is_kept = (ordered >= lower[:, None]) & (ordered <= upper[:, None])
    of_all = np.abs(ordered - _quantile(ordered, 0.5)[:, None])
    # The usual case: without outliers both distances are the same.
    if is_kept.all():
        return _Distances(of_all, of_all, is_kept)
    # The rows are sorted, so the kept points are one run: its middle is their median.
    first, num_kept = is_kept.argmax(axis=1), is_kept.sum(axis=1)
    rows, middle = np.arange(len(ordered)), first + (num_kept - 1) // 2
    median = (ordered[rows, middle] + ordered[rows, first + num_kept // 2]) / 2
    return _Distances(of_all, np.abs(ordered - median[:, None]), is_kept)


def _quantile(ordered: Float[np.ndarray, "B N"], share: float) -> Float[np.ndarray, " B"]:
    """Computes numpy's quantile, which takes 30 times as long for a batch of this size."""
    size = ordered.shape[1]
    # Linear interpolation between two order statistics, in numpy's own order of operations.
    index, fraction = divmod(share * (size - 1), 1)
    below, above = ordered[:, int(index)], ordered[:, min(int(index) + 1, size - 1)]
    step = above - below
    return np.asarray(above - step * (1 - fraction) if fraction >= 0.5 else below + step * fraction)


def _variance_analysis(
    clean: Float[np.ndarray, "B N"],
    suspect: Float[np.ndarray, "B M"],
    clean_counts: Bool[np.ndarray, "B N"],
    suspect_counts: Bool[np.ndarray, "B M"],
) -> tuple[Float[np.ndarray, " B"], Float[np.ndarray, " B"]]:
    """Computes statistic and p-value of one-way analysis of variance of counted distances."""
    num_clean, num_suspect = clean_counts.sum(axis=1), suspect_counts.sum(axis=1)
    clean_sum = (clean * clean_counts).sum(axis=1)
    suspect_sum = (suspect * suspect_counts).sum(axis=1)
    num_points = num_clean + num_suspect
    clean_mean, suspect_mean = clean_sum / num_clean, suspect_sum / num_suspect
    pooled_mean = (clean_sum + suspect_sum) / num_points
    between = num_clean * (clean_mean - pooled_mean) ** 2
    between = between + num_suspect * (suspect_mean - pooled_mean) ** 2
    within = _squares(clean, clean_mean, clean_counts)
    within += _squares(suspect, suspect_mean, suspect_counts)
    is_equal = between == 0  # also 0 / 0: all points equally far from their medians
    with np.errstate(divide="ignore"):  # F with 1 and N - 2 degrees of freedom
        statistic = between / np.where(is_equal, 1.0, within) * (num_points - 2)
    return statistic, np.where(is_equal, 1.0, special.fdtrc(1, num_points - 2, statistic))


def _squares(
    values: Float[np.ndarray, "B N"],
    mean: Float[np.ndarray, " B"],
    counts: Bool[np.ndarray, "B N"],
) -> Float[np.ndarray, " B"]:
    """Computes the sum of squares around the mean, of the counted values."""
    return np.asarray(((values - mean[:, None]) ** 2 * counts).sum(axis=1))
