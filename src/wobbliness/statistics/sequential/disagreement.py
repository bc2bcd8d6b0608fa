"""Bounds of W from disagreements, the votes for other classes than a given one.

With a share q of disagreements W is at most h(q) + q log(K - 1), the disagreements spread evenly,
and for the leading class at least h(q), all disagreements in one class, where q is at most 1/2; h
is the binary entropy. The bounds of W are confidence sequences: the likelihood of the disagreements
seen under a mixture of shares, over their largest likelihood under the rejected hypothesis, ever
exceeds 1 / error_rate with at most that probability (universal inference, Wasserman et al. 2020,
and Ville's inequality), so an interim analysis after every draw is valid.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int
from scipy import special

UNANIMOUS_WEIGHT = 0.3  # of the mixture, on "none at all": many smooth points are unanimous
FEW_DISAGREEMENTS = ((0.35, 1.0, 20.0), (0.35, 1.0, 60.0))  # (weight, a, b) of Beta(a, b) shares
MANY_DISAGREEMENTS = ((0.5, 0.5, 0.5), (0.5, 0.5, 5.0))
BISECTION_STEPS = 50


def upper_bound(
    draws: Int[np.ndarray, " N"],
    disagreements: Int[np.ndarray, " N"],
    *,
    num_classes: int,
    error_rate: float,
) -> Float[np.ndarray, " N"]:
    """Computes the upper end of a one-sided confidence sequence of W, nats.

    Args:
        draws: `(N,)` draws after the first.
        disagreements: `(N,)` those that predicted another class than the first.
        num_classes: K.
        error_rate: probability that W ever exceeds it.
    """

    def is_rejected(share: np.ndarray) -> np.ndarray:
        rejected = log_likelihood_at_least(draws, disagreements, share)
        return np.asarray(
            log_mixture(draws, disagreements, FEW_DISAGREEMENTS, UNANIMOUS_WEIGHT) - rejected
            >= -np.log(error_rate)
        )

    # Beyond this share, at equally likely classes, W falls again: the largest W is at it.
    largest = 1 - 1 / num_classes
    share = bisect(is_rejected, np.full(len(draws), largest), np.zeros(len(draws)))
    return np.asarray(largest_entropy(share, num_classes))


def lower_bound(
    draws: Int[np.ndarray, " N"],
    disagreements: Int[np.ndarray, " N"],
    *,
    num_classes: int,
    error_rate: float,
) -> Float[np.ndarray, " N"]:
    """Computes the lower end of a one-sided confidence sequence of W, nats.

    Args:
        draws: `(N,)` draws.
        disagreements: `(N,)` those that did not predict the class predicted most often.
        num_classes: K.
        error_rate: probability that W is ever below it.
    """

    def is_rejected(share: np.ndarray) -> np.ndarray:
        rejected = log_likelihood_at_most(draws, disagreements, share)
        return np.asarray(
            log_mixture(draws, disagreements, MANY_DISAGREEMENTS, 0.0) - rejected
            >= -np.log(error_rate)
        )

    # The mirror image of the upper bound: the largest share that is still rejected from below.
    share = bisect(is_rejected, np.zeros(len(draws)), np.full(len(draws), 1 - 1 / num_classes))
    return smallest_entropy(share)


def share_of_largest_entropy(
    entropy: Float[np.ndarray, "..."], num_classes: int
) -> Float[np.ndarray, "..."]:
    """Finds the smallest share of disagreements with which W can reach an entropy.

    The root of h(q) + q log(K - 1).
    """
    ends = np.full(entropy.shape, 1 - 1 / num_classes), np.zeros(entropy.shape)
    return bisect(lambda share: largest_entropy(share, num_classes) >= entropy, *ends)


def share_of_smallest_entropy(
    entropy: Float[np.ndarray, "..."], num_classes: int
) -> Float[np.ndarray, "..."]:
    """Finds the largest share of disagreements with which W can stay below an entropy.

    Disagreements are those with the leading class.
    """
    ends = np.full(entropy.shape, 1 - 1 / num_classes), np.zeros(entropy.shape)
    return bisect(lambda share: smallest_entropy(share) >= entropy, *ends)


def log_mixture(
    draws: np.ndarray,
    disagreements: np.ndarray,
    shares: tuple[tuple[float, float, float], ...],
    unanimous: float,
) -> Float[np.ndarray, "..."]:
    """Computes the log-probability of the draws in order under a mixture of shares.

    Of Beta-distributed shares of disagreements, and of none at all.
    """
    with np.errstate(divide="ignore"):
        # A point mass at share 0, then each Beta as a Beta-binomial of the draws in order.
        parts = [np.log(unanimous) + np.where(disagreements == 0, 0.0, -np.inf)]
    for weight, a, b in shares:
        parts.append(
            np.log(weight)
            + special.betaln(a + disagreements, b + np.maximum(draws - disagreements, 0))
            - special.betaln(a, b)
        )
    return np.asarray(special.logsumexp(np.stack(np.broadcast_arrays(*parts)), axis=0))


def log_likelihood_at_least(
    draws: np.ndarray, disagreements: np.ndarray, share: np.ndarray
) -> Float[np.ndarray, "..."]:
    """Computes the largest log-likelihood where disagreements have at least this share."""
    return _log_binomial(
        draws, disagreements, np.maximum(share, disagreements / np.maximum(draws, 1))
    )


def log_likelihood_at_most(
    draws: np.ndarray, disagreements: np.ndarray, share: np.ndarray
) -> Float[np.ndarray, "..."]:
    """Computes the largest log-likelihood where disagreements have at most this share."""
    return _log_binomial(
        draws, disagreements, np.minimum(share, disagreements / np.maximum(draws, 1))
    )


def _log_binomial(
    draws: np.ndarray, disagreements: np.ndarray, share: np.ndarray
) -> Float[np.ndarray, "..."]:
    # In the order the draws came, so without the binomial coefficient; 0 log 0 is 0.
    return np.asarray(
        special.xlogy(disagreements, share)
        + special.xlog1py(np.maximum(draws - disagreements, 0), -share)
    )


def largest_entropy(share: np.ndarray, num_classes: int) -> Float[np.ndarray, "..."]:
    """Computes the entropy, nats, of disagreements spread evenly over all other classes."""
    return np.asarray(
        special.entr(share) + special.entr(1 - share) + share * np.log(num_classes - 1)
    )


def smallest_entropy(share: np.ndarray) -> Float[np.ndarray, "..."]:
    """Computes the smallest entropy, nats, where the leading class lacks a share.

    As many classes as possible are just as likely as the leading one, and one takes the rest.
    """
    # Entropy is concave: it is least at a corner, as many classes at the largest share as fit.
    lead = np.maximum(1 - share, 1e-12)
    equals = np.floor(1 / lead * (1 + 1e-12))
    return np.asarray(equals * special.entr(lead) + special.entr(np.clip(1 - equals * lead, 0, 1)))


def bisect(
    holds: Callable[[np.ndarray], np.ndarray], yes: np.ndarray, no: np.ndarray
) -> np.ndarray:
    """Finds an end, at which a monotone statement still holds, of the range where it does.

    Searches between `yes`, where it holds, and `no`, where it does not.
    """
    # The same number of halvings for all elements, to within a few roundings of float64.
    for _ in range(BISECTION_STEPS):
        middle = np.asarray((yes + no) / 2)
        holding = holds(middle)
        yes, no = np.where(holding, middle, yes), np.where(holding, no, middle)
    return np.asarray(yes)
