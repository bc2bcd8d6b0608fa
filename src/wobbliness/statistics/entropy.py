"""Entropy of vote counts: estimates, standard error and confidence bounds.

Everything here takes counts, an integer array whose last axis holds the votes of each class, and
works row by row. Entropies use the natural logarithm (nats).
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from scipy import special

BISECTION_STEPS = 60
SECOND_ORDER = 9  # three standard errors, squared
UNSEEN_VOTES = 0.5
# Nudges the leading class ahead of its equals, so that a tied row can tilt at all.
TIE_BREAK = 1e-9


def plug_in_entropy(counts: ArrayLike) -> Float[np.ndarray, "..."]:
    """Computes the entropy of the observed class frequencies: the paper's W (Eq. 3).

    W = - sum_k p_k log p_k with p_k = counts_k / n.

    Args:
        counts: `(..., K)` non-negative integers, the votes of each class.

    Returns:
        `(...)` nats, in [0, log K]. Biased low by about (K_seen - 1) / (2 n).

    Raises:
        ValueError: counts are not integers, negative, or a row has no vote.
    """
    frequencies, _ = _frequencies(counts)
    return np.asarray(special.entr(frequencies).sum(axis=-1) + 0.0)


def miller_madow_entropy(counts: ArrayLike) -> Float[np.ndarray, "..."]:
    """Computes the entropy with the Miller-Madow bias correction (K_seen - 1) / (2 n).

    Args:
        counts: `(..., K)` non-negative integers, the votes of each class.

    Returns:
        `(...)` nats; exactly 0 where a single class was predicted; may exceed log K by the
        correction.

    Raises:
        ValueError: counts are not integers, negative, or a row has no vote.
    """
    frequencies, num_draws = _frequencies(counts)
    num_seen = (frequencies > 0).sum(axis=-1)
    return np.asarray(plug_in_entropy(counts) + (num_seen - 1) / (2 * num_draws))


def entropy_standard_error(counts: ArrayLike) -> Float[np.ndarray, "..."]:
    """Computes the standard error of the plug-in entropy.

    Delta method, Var = (sum_k p_k log^2 p_k - H^2) / n + 9 (K_seen - 1) / (2 n^2), with three
    precautions where it is known to be too small. Near equally likely classes the first term nearly
    vanishes and is badly known itself, so the second-order term is taken three standard errors
    wide. A variance estimated from one or two votes that disagree with the top class is too small,
    so the frequencies are first moved by the "plus four" rule of Agresti and Coull: two votes more
    for the leading class, two for all others together. And where some class went unseen, it adds
    the term of half a vote. All three fade as the draws grow. Where all votes are equal the data
    hold no estimate of spread, and the 95 % upper bound of the entropy is returned instead of a
    false 0.

    Args:
        counts: `(..., K)` non-negative integers, the votes of each class.

    Returns:
        `(...)` nats, always positive.

    Raises:
        ValueError: counts are not integers, negative, or a row has no vote.
    """
    frequencies, num_draws = _frequencies(counts)
    num_seen = (frequencies > 0).sum(axis=-1)
    first_order = _surprise_variance(_plus_four(frequencies, num_draws))
    unseen = np.where(num_seen < frequencies.shape[-1], _unseen_term(num_draws), 0.0)
    # The second-order term is taken three standard errors wide.
    second_order = SECOND_ORDER * (num_seen - 1) / (2 * num_draws**2)
    variance = (np.maximum(first_order, 0.0) + unseen) / num_draws + second_order
    standard_error = np.asarray(np.sqrt(variance))
    unanimous = num_seen == 1
    if unanimous.any():
        # All votes equal: no spread to estimate, so the 95 % upper bound of the entropy.
        votes = np.asarray(counts)[unanimous]
        standard_error[unanimous] = entropy_upper_bound(votes, confidence=0.95)
    return standard_error


def _surprise_variance(probabilities: Float[np.ndarray, "... K"]) -> Float[np.ndarray, "..."]:
    """Computes the variance of -log p under p, the first term of the delta method."""
    # Where p is 0 the logarithm is taken of 1: the product with p is 0 either way.
    surprise = -np.log(np.where(probabilities > 0, probabilities, 1.0))
    mean = (probabilities * surprise).sum(axis=-1)
    return np.asarray((probabilities * surprise**2).sum(axis=-1) - mean**2)


def _unseen_term(num_draws: Int[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Computes what a class with half a vote adds to the variance of -log p."""
    return np.asarray(UNSEEN_VOTES / num_draws * np.log(UNSEEN_VOTES / num_draws) ** 2)


def entropy_upper_bound(counts: ArrayLike, *, confidence: float = 0.95) -> Float[np.ndarray, "..."]:
    """Computes a one-sided upper confidence bound of the entropy.

    The maximum of H(p) over {p : KL(p_observed || p) <= c}. With c = log(1 / (1 - confidence)) / n
    this is Chernoff's bound, which for unanimous votes is the exact one: all n equal leave a share
    1 - (1 - confidence)^(1/n) to the other classes. c is at least the chi-squared quantile over 2 n
    (Wilks), with one degree of freedom less than there are classes seen, and one more for each
    class seen only once, since as many may have been missed (Good-Turing). Near equal classes it
    falls short where there are few draws for each class (seen from 50 classes and 250 draws on, or
    10 and 25).

    Args:
        counts: `(..., K)` non-negative integers, the votes of each class.
        confidence: in (0, 1).

    Returns:
        `(...)` nats, in (0, log K].

    Raises:
        ValueError: counts are not integers, negative, or a row has no vote; confidence outside (0,
            1).
    """
    frequencies, num_draws = _frequencies(counts)
    tail = 1.0 - checked_confidence(confidence)
    votes = np.asarray(counts)
    num_seen, num_seen_once = (votes >= 1).sum(axis=-1), (votes == 1).sum(axis=-1)
    # Degrees of freedom of Wilks's bound; one more for each class seen once (Good-Turing).
    degrees = np.clip(num_seen - 1 + num_seen_once, 1, frequencies.shape[-1] - 1)
    # The larger of Chernoff's radius, exact for unanimous votes, and Wilks's.
    radius = np.maximum(-np.log(tail), special.chdtri(degrees, tail) / 2) / num_draws
    return np.asarray(
        # The maximiser of the entropy lies on the path to uniform; log-strengths -40 and 1e6 are
        # its ends.
        special.entr(_tilt(frequencies, radius, _towards_uniform, (-40.0, 1e6))).sum(axis=-1)
    )


def entropy_lower_bound(counts: ArrayLike, *, confidence: float = 0.95) -> Float[np.ndarray, "..."]:
    """Computes a one-sided lower confidence bound of the entropy.

    The entropy of the escort distribution p_k^b / sum_j p_j^b whose divergence KL(p_observed || p)
    is log(1 / (1 - confidence)) / n. For two classes this is the exact end of Chernoff's interval.

    Args:
        counts: `(..., K)` non-negative integers, the votes of each class.
        confidence: in (0, 1).

    Returns:
        `(...)` nats, in [0, log K); 0 where the votes are unanimous.

    Raises:
        ValueError: counts are not integers, negative, or a row has no vote; confidence outside (0,
            1).
    """
    frequencies, num_draws = _frequencies(counts)
    radius = -np.log(1.0 - checked_confidence(confidence)) / num_draws
    return np.asarray(
        # Escort distributions: log-powers 35 (one class alone) and 0 (the frequencies themselves).
        special.entr(_tilt(frequencies, radius, _towards_certain, (35.0, 0.0))).sum(axis=-1)
    )


def checked_confidence(confidence: float) -> float:
    """Returns the confidence as a float; ValueError where it does not lie in (0, 1)."""
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"expected a confidence between 0 and 1, got {confidence}")
    return float(confidence)


def _frequencies(counts: ArrayLike) -> tuple[Float[np.ndarray, "... K"], Int[np.ndarray, "..."]]:
    votes = np.asarray(counts)
    if votes.ndim == 0 or not np.issubdtype(votes.dtype, np.integer):
        raise ValueError(
            f"expected integer counts of shape (..., K), got {votes.dtype} of shape {votes.shape}"
        )
    if votes.size and votes.min() < 0:
        raise ValueError(f"expected counts of at least 0, got {votes.min()}")
    num_draws = np.asarray(votes.sum(axis=-1))
    if (num_draws < 1).any():
        raise ValueError("expected at least one vote in every row, got a row without any")
    if votes.shape[-1] == 1:  # leaves room for a class that was never predicted
        votes = np.concatenate([votes, np.zeros_like(votes)], axis=-1)
    return votes / num_draws[..., None], num_draws


def _plus_four(
    frequencies: Float[np.ndarray, "... K"], num_draws: Int[np.ndarray, "..."]
) -> Float[np.ndarray, "... K"]:
    top = frequencies.argmax(axis=-1)[..., None]
    leading = np.take_along_axis(frequencies, top, axis=-1)
    draws = num_draws[..., None]
    # "Plus four": n + 4 votes, two more for the leader and two for all others together.
    rest = (draws * (1 - leading) + 2) / (draws + 4)
    adjusted = np.asarray(frequencies * rest / np.maximum(1 - leading, 1 / draws))
    np.put_along_axis(adjusted, top, 1 - rest, axis=-1)
    return adjusted


def _towards_uniform(frequencies: np.ndarray, log_strength: np.ndarray) -> np.ndarray:
    """Returns the log of the weights on the path from f to the uniform distribution.

    Stationary points of H(p) + strength * sum_k f_k log p_k: f itself at infinity, uniform at minus
    infinity.
    """
    with np.errstate(divide="ignore"):
        log_frequencies = np.log(frequencies)
    # A class without a vote has log f = -inf; its log-weight is 0, the limit of omega there.
    seen = np.isfinite(log_frequencies)
    # Lambert W of strength * f
    weights = special.wrightomega(np.where(seen, log_frequencies, 0.0) + log_strength)
    return np.where(seen, weights, 0.0)


def _towards_certain(frequencies: np.ndarray, log_power: np.ndarray) -> np.ndarray:
    """Returns the log of f^power, from f at power 1 to the leading class alone at infinity."""
    leader = np.zeros_like(frequencies)
    np.put_along_axis(leader, frequencies.argmax(axis=-1)[..., None], TIE_BREAK, axis=-1)
    with np.errstate(divide="ignore"):
        return np.asarray(np.exp(log_power) * np.log(frequencies + leader))


def _tilt(
    frequencies: np.ndarray,
    radius: np.ndarray,
    log_weights: Callable[[np.ndarray, np.ndarray], np.ndarray],
    ends: tuple[float, float],
) -> np.ndarray:
    """Finds softmax(log_weights(f, t)) at divergence `radius` from f, by bisection of t.

    `ends` is (far, near): the divergence falls from the first to the second. Where even the far end
    lies within the radius, the far end is the answer.
    """
    far, near = (np.full(frequencies.shape[:-1], end) for end in ends)
    for _ in range(BISECTION_STEPS):
        middle = (far + near) / 2
        candidate = log_weights(frequencies, middle[..., None])
        log_p = candidate - special.logsumexp(candidate, axis=-1, keepdims=True)
        divergence = special.rel_entr(frequencies, np.exp(log_p)).sum(axis=-1)
        # `near` always lies within the radius, so the answer does; `far` moves in until they meet.
        inside = divergence <= radius
        far, near = np.where(inside, far, middle), np.where(inside, middle, near)
    return np.asarray(special.softmax(log_weights(frequencies, near[..., None]), axis=-1))
