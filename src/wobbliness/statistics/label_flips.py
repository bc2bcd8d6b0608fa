"""Votes of linear heads that are trained on flipped labels, bounded without any training.

A head by least squares on fixed features is linear in its labels, so that the probability of its
prediction under flips has a closed-form bound (Rosenfeld, Winston, Ravikumar and Kolter 2020).
"""

import numpy as np
from jaxtyping import Float, Int
from scipy import special

from wobbliness.statistics.certificates import label_flip_radius

THRESHOLD = 0.5  # of class 1, halfway between its label and that of class 0
# t times the largest weight: beyond it rounding would show
LARGEST_EXPONENT = 2.0**20
SMALLEST_SCALE = 1e-300  # a divisor: all weights may be zero
BISECTIONS = 60
# A bound is not rounded up to 1, which would certify any number of flips.
HIGHEST = 1 - 2.0**-40


def ridge_weights(
    features: Float[np.ndarray, "m d"], points: Float[np.ndarray, "N d"], ridge: float
) -> Float[np.ndarray, "N m"]:
    """Computes what each training label adds to the prediction of each point.

    The head that minimises |X w - y|^2 + ridge |w|^2 predicts alpha^T y at a point x, with
    alpha = X (X^T X + ridge I)^-1 x. An intercept is a column of ones.

    Args:
        features: `(m, d)` of the training set, X.
        points: `(N, d)` features of what is predicted.
        ridge: above 0.

    Returns:
        `(N, m)`, a row alpha for each point.

    Raises:
        ValueError: ridge is not above 0.
    """
    if not ridge > 0:
        raise ValueError(f"expected a ridge above 0, got {ridge}")
    # d x d and positive definite: solved for all labels together, which loses fewer digits than an
    # explicit inverse.
    gram = features.T @ features + ridge * np.eye(features.shape[1])
    return np.asarray(points @ np.linalg.solve(gram, features.T))


def flipped_head_bounds(
    weights: Float[np.ndarray, "N m"], labels: Int[np.ndarray, " m"], share: float
) -> Float[np.ndarray, "N 2"]:
    r"""Computes lower bounds of the probabilities of both classes under flipped labels.

    The head predicts class 1 where alpha^T y >= 1/2. Each label y_i is flipped with probability q,
    independently. By Chernoff's bound,

    P(1) >= 1 - min_{t > 0} e^{t/2} prod_{y_i = 1} (q + (1 - q) e^{-t alpha_i})
    prod_{y_i = 0} (1 - q + q e^{-t alpha_i}),

    and likewise of class 0 with -alpha and -1/2. Nothing is drawn: the bounds hold with certainty.

    Args:
        weights: `(N, m)`, a row alpha for each point (`ridge_weights`).
        labels: `(m,)` zeros and ones.
        share: q, in (0, 1).

    Returns:
        `(N, 2)`; at most one of a row is above 0.

    Raises:
        ValueError: share is out of range, or labels are not zeros and ones.
    """
    failing = _failing_exponents(weights, labels, share)
    # expm1 keeps the digits of bounds near 0; 0.0 - 0.0 is 0.0, where a negation gives -0.0.
    return np.asarray(np.minimum(0.0 - np.expm1(failing), HIGHEST))


def flipped_head_radius(
    weights: Float[np.ndarray, "N m"], labels: Int[np.ndarray, " m"], share: float
) -> Int[np.ndarray, " N"]:
    """Computes how many training labels an adversary may flip without changing the smoothed class.

    The larger one of two certificates from the same bound p: `certificates.label_flip_radius`,
    which is exact for p, and ln(4 p (1 - p)) / (2 (1 - 2 q) ln(q / (1 - q))) of the paper, which
    also tells apart probabilities that are too close to 1 for a number.

    Args:
        weights: as for `flipped_head_bounds`.
        labels: as there.
        share: q, in (0, 1/2).

    Returns:
        `(N,)` numbers of labels, at most m; 0 where the bound is at most 1/2.

    Raises:
        ValueError: as for `flipped_head_bounds`.
    """
    if not 0 < share < 0.5:
        raise ValueError(f"expected a share in (0, 1/2), got {share}")
    # Of the two bounds at most one is above 0: that of the smoothed class, if it is known at all.
    failing = _failing_exponents(weights, labels, share).min(axis=1)
    bounds = np.minimum(-np.expm1(failing), HIGHEST)
    exact = label_flip_radius(bounds, share)
    # 1 - p as its logarithm, which cannot round to 0
    by_divergence = (np.log(4 * np.maximum(bounds, 0.5)) + failing) / (
        2 * (1 - 2 * share) * special.logit(share)
    )
    # Up to 1/2 the other class may have the majority already: nothing is certified.
    published = np.where(bounds > 0.5, by_divergence, 0.0).clip(0, len(labels))
    # Both certificates hold, so the larger one does; rounded down, since labels flip whole.
    found = np.maximum(exact, np.floor(published).astype(np.int64))
    # The exact radius follows from p alone; no more labels can be flipped than there are.
    return np.asarray(found.clip(max=len(labels)))


def _failing_exponents(
    weights: Float[np.ndarray, "N m"], labels: Int[np.ndarray, " m"], share: float
) -> Float[np.ndarray, "N 2"]:
    """Returns ln of upper bounds of the probabilities that class 0 and 1 is not predicted."""
    if not 0 < share < 1:
        raise ValueError(f"expected a share in (0, 1), got {share}")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(f"expected labels 0 and 1, got {labels.min()} to {labels.max()}")
    ones = np.where(labels == 1, 1 - share, share)  # of each label, the probability of a 1
    # Class 0 fails above the threshold: the same tail bound with both signs reversed.
    exponents = [_least_exponents(side * weights, ones, side * THRESHOLD) for side in (-1.0, 1.0)]
    return np.stack(exponents, axis=1)


def _least_exponents(
    weights: Float[np.ndarray, "N m"], ones: Float[np.ndarray, " m"], threshold: float
) -> Float[np.ndarray, " N"]:
    """Computes min over t >= 0 of ln E exp(-t (alpha^T y - threshold)), at most 0.

    It is convex in t: the minimum is where the derivative crosses zero. Any t gives a bound, so
    that an inexact one is still valid.
    """
    # t is searched in units of 1 / the largest weight, so that the scale of features is no matter.
    scales = np.abs(weights).max(axis=1, initial=0.0)
    low = np.zeros(len(weights))
    high = LARGEST_EXPONENT / np.maximum(scales, SMALLEST_SCALE)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        # The derivative is threshold - tilted mean; where it is positive the minimum lies below t.
        is_past = _means(weights, ones, middle) < threshold
        low, high = np.where(is_past, low, middle), np.where(is_past, middle, high)
    # At 0 the exponent is 0 exactly, where noise alone decides for the other class.
    return np.asarray(np.minimum(_exponents(weights, ones, threshold, low), 0.0))


def _means(
    weights: Float[np.ndarray, "N m"], ones: Float[np.ndarray, " m"], t: Float[np.ndarray, " N"]
) -> Float[np.ndarray, " N"]:
    """Returns the mean of alpha^T y under the distribution tilted by exp(-t alpha^T y)."""
    # Tilting subtracts t alpha_i from the logit of each label; in this form nothing overflows.
    tilted = special.expit(special.logit(ones) - t[:, None] * weights)
    return np.asarray((weights * tilted).sum(axis=1))


def _exponents(
    weights: Float[np.ndarray, "N m"],
    ones: Float[np.ndarray, " m"],
    threshold: float,
    t: Float[np.ndarray, " N"],
) -> Float[np.ndarray, " N"]:
    """Returns ln E exp(-t (alpha^T y - threshold)): labels are independent, so it is a sum."""
    # ln(P(0) + P(1) e^(-t alpha_i)) without the exponential itself, which may overflow.
    each = np.logaddexp(np.log1p(-ones), np.log(ones) - t[:, None] * weights)
    return np.asarray(threshold * t + each.sum(axis=1))
