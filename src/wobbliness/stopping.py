"""When enough draws were made: boundaries for sequential decisions about W.

All rests on strays, the votes for other classes than a given one. With a share q of strays W is at most h(q) + q log(K - 1), the
strays spread evenly, and for the leading class at least h(q), all strays in one class, where q is at most 1/2; h is the binary
entropy. A decision rejects "W is at least the threshold", or "W is below it", by an e-process: the likelihood of the strays seen
under a mixture of shares, over their largest likelihood under what is to be rejected (universal inference, Wasserman et al.
2020). It ever exceeds 1 / error_rate with at most that probability (Ville's inequality), so one may look after every draw.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import special

UNANIMOUS_WEIGHT = 0.7  # of the mixture, on "no strays at all": most smooth points are unanimous
FEW_STRAYS = ((0.1, 1.0, 10.0), (0.1, 1.0, 40.0), (0.1, 1.0, 160.0))  # (weight, a, b) of Beta(a, b) shares
MANY_STRAYS = ((0.5, 0.5, 0.5), (0.5, 0.5, 5.0))
BISECTION_STEPS = 50

LogLikelihood = Callable[[Int[np.ndarray, "..."], Int[np.ndarray, "..."]], Float[np.ndarray, "..."]]
"""Gives the largest log-likelihood of (draws, strays) in order, under what is to be rejected."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Boundaries:
    """At which numbers of strays an image is settled.

    Attributes:
        most_below: `(max_draws + 1,)` after n draws W is called below the threshold where at most this many of the draws 2 ... n
            named another class than draw 1; -1 where no number suffices.
        least_above: `(max_draws + 1,)` after n draws W is called not below where the leading class has at least so many strays.
    """

    most_below: Int[np.ndarray, " D"]
    least_above: Int[np.ndarray, " D"]


def true_boundaries(threshold: float, *, num_classes: int, error_rate: float, max_draws: int) -> Boundaries:
    """Boundaries for the true W, that of infinitely many draws.

    For an image with W at or above the threshold the probability of ever being called below is at most `error_rate`, and the
    other way round. Each is a one-sided statement that spends all of `error_rate`, since only one of the two can be wrong.

    Args:
        threshold: nats, above 0 and below log K.
        num_classes: K.
        error_rate: in (0, 1), of each image.
        max_draws: the most draws of an image.
    """
    least_share = share_of_largest_entropy(np.asarray(threshold), num_classes)
    most_share = share_of_smallest_entropy(np.asarray(threshold), num_classes)
    return _boundaries(
        lambda draws, strays: _log_binomial(draws, strays, np.maximum(least_share, strays / np.maximum(draws, 1))),
        lambda draws, strays: _log_binomial(draws, strays, np.minimum(most_share, strays / np.maximum(draws, 1))),
        error_rate=error_rate,
        max_draws=max_draws,
    )


def curtailed_boundaries(threshold: float, *, num_classes: int, error_rate: float, max_draws: int) -> Boundaries:
    """Boundaries for the plug-in W that all `max_draws` draws together would give.

    The draws of an image come in random order, so the first n are a sample without replacement of all. Whatever those are, the
    probability of a decision that differs from theirs is at most `error_rate`.

    Args:
        threshold: nats, above 0.
        num_classes: K.
        error_rate: in (0, 1), of each image.
        max_draws: the number of draws that the threshold is meant for.
    """
    strays = np.arange(max_draws + 1)
    reachable = _largest_plug_in(strays, max_draws, num_classes) >= threshold
    certain = _smallest_entropy(strays / max_draws) >= threshold
    fewest = int(np.argmax(reachable)) if reachable.any() else max_draws + 1
    most = int(np.argmax(certain)) - 1 if certain.any() else max_draws
    return _boundaries(
        lambda n, s: _log_hypergeometric(n, s, max_draws - 1, at_least=fewest),
        lambda n, s: _log_hypergeometric(n, s, max_draws, at_most=most),
        error_rate=error_rate,
        max_draws=max_draws,
    )


def upper_bound(
    draws: Int[np.ndarray, " N"], strays: Int[np.ndarray, " N"], *, num_classes: int, error_rate: float
) -> Float[np.ndarray, " N"]:
    """Upper end of a one-sided confidence sequence of W, nats.

    Args:
        draws: `(N,)` draws after the first.
        strays: `(N,)` those that named another class than the first.
        num_classes: K.
        error_rate: probability that W ever exceeds it.
    """

    def is_rejected(share: np.ndarray) -> np.ndarray:
        rejected = _log_binomial(draws, strays, np.maximum(share, strays / np.maximum(draws, 1)))
        return np.asarray(_log_mixture(draws, strays, FEW_STRAYS, UNANIMOUS_WEIGHT) - rejected >= -np.log(error_rate))

    largest = 1 - 1 / num_classes
    share = _bisect(is_rejected, np.full(len(draws), largest), np.zeros(len(draws)))
    return np.asarray(_largest_entropy(share, num_classes))


def lower_bound(
    draws: Int[np.ndarray, " N"], strays: Int[np.ndarray, " N"], *, num_classes: int, error_rate: float
) -> Float[np.ndarray, " N"]:
    """Lower end of a one-sided confidence sequence of W, nats.

    Args:
        draws: `(N,)` draws.
        strays: `(N,)` those that did not name the class named most often.
        num_classes: K.
        error_rate: probability that W is ever below it.
    """

    def is_rejected(share: np.ndarray) -> np.ndarray:
        rejected = _log_binomial(draws, strays, np.minimum(share, strays / np.maximum(draws, 1)))
        return np.asarray(_log_mixture(draws, strays, MANY_STRAYS, 0.0) - rejected >= -np.log(error_rate))

    share = _bisect(is_rejected, np.zeros(len(draws)), np.full(len(draws), 1 - 1 / num_classes))
    return _smallest_entropy(share)


def share_of_largest_entropy(entropy: Float[np.ndarray, "..."], num_classes: int) -> Float[np.ndarray, "..."]:
    """The smallest share of strays with which W can reach an entropy: the root of h(q) + q log(K - 1)."""
    ends = np.full(entropy.shape, 1 - 1 / num_classes), np.zeros(entropy.shape)
    return _bisect(lambda share: _largest_entropy(share, num_classes) >= entropy, *ends)


def share_of_smallest_entropy(entropy: Float[np.ndarray, "..."], num_classes: int) -> Float[np.ndarray, "..."]:
    """The largest share of strays of the leading class with which W can stay below an entropy."""
    ends = np.full(entropy.shape, 1 - 1 / num_classes), np.zeros(entropy.shape)
    return _bisect(lambda share: _smallest_entropy(share) >= entropy, *ends)


def _boundaries(rejected_below: LogLikelihood, rejected_above: LogLikelihood, *, error_rate: float, max_draws: int) -> Boundaries:
    needed = -np.log(error_rate)
    after_first = np.maximum(np.arange(max_draws + 1) - 1, 0)
    draws = np.arange(max_draws + 1)

    def is_below(strays: np.ndarray) -> np.ndarray:
        evidence = _log_mixture(after_first, strays, FEW_STRAYS, UNANIMOUS_WEIGHT) - rejected_below(after_first, strays)
        return np.asarray((evidence >= needed) & (strays <= after_first))

    def is_above(strays: np.ndarray) -> np.ndarray:
        return np.asarray(_log_mixture(draws, strays, MANY_STRAYS, 0.0) - rejected_above(draws, strays) >= needed)

    return Boundaries(
        most_below=np.where(is_below(np.zeros_like(draws)), _search(is_below, np.zeros_like(draws), draws + 1), -1),
        least_above=np.where(is_above(draws), _search(is_above, draws, np.full_like(draws, -1)), max_draws + 1),
    )


def _search(holds: Callable[[np.ndarray], np.ndarray], yes: np.ndarray, no: np.ndarray) -> np.ndarray:
    """The integer next to `no` for which a monotone statement still holds, between `yes`, where it does, and `no`, where not."""
    while (np.abs(yes - no) > 1).any():
        middle = (yes + no) // 2
        holding = holds(np.clip(middle, 0, None)) & (np.abs(yes - no) > 1)
        yes, no = np.where(holding, middle, yes), np.where(holding | (np.abs(yes - no) <= 1), no, middle)
    return yes


def _bisect(holds: Callable[[np.ndarray], np.ndarray], yes: np.ndarray, no: np.ndarray) -> np.ndarray:
    for _ in range(BISECTION_STEPS):
        middle = np.asarray((yes + no) / 2)
        holding = holds(middle)
        yes, no = np.where(holding, middle, yes), np.where(holding, no, middle)
    return np.asarray(yes)


def _log_mixture(
    draws: np.ndarray, strays: np.ndarray, shares: tuple[tuple[float, float, float], ...], unanimous: float
) -> Float[np.ndarray, "..."]:
    """Log-probability of the draws in order under a mixture of Beta shares of strays and of none at all."""
    with np.errstate(divide="ignore"):
        parts = [np.log(unanimous) + np.where(strays == 0, 0.0, -np.inf)]
    for weight, a, b in shares:
        parts.append(np.log(weight) + special.betaln(a + strays, b + np.maximum(draws - strays, 0)) - special.betaln(a, b))
    return np.asarray(special.logsumexp(np.stack(parts), axis=0))


def _log_binomial(draws: np.ndarray, strays: np.ndarray, share: np.ndarray) -> Float[np.ndarray, "..."]:
    return np.asarray(special.xlogy(strays, share) + special.xlog1py(np.maximum(draws - strays, 0), -share))


def _log_hypergeometric(
    draws: np.ndarray, strays: np.ndarray, population: int, *, at_least: int = 0, at_most: int | None = None
) -> Float[np.ndarray, "..."]:
    """Largest log-probability of the draws in order, without replacement, with the strays of the population within limits."""
    limit = population if at_most is None else min(at_most, population)
    likeliest = np.floor(strays * (population + 1) / np.maximum(draws, 1))
    total = np.clip(likeliest, min(at_least, population), limit)
    left, strays_left = population - draws, total - strays
    possible = (strays_left >= 0) & (strays_left <= left) & (at_least <= population)
    with np.errstate(invalid="ignore"):
        value = _log_choose(left, np.clip(strays_left, 0, np.maximum(left, 0))) - _log_choose(population, total)
    return np.where(possible, value, -np.inf)


def _log_choose(total: np.ndarray | int, chosen: np.ndarray) -> Float[np.ndarray, "..."]:
    return np.asarray(special.gammaln(np.asarray(total) + 1) - special.gammaln(chosen + 1) - special.gammaln(total - chosen + 1))


def _largest_entropy(share: np.ndarray, num_classes: int) -> Float[np.ndarray, "..."]:
    return np.asarray(special.entr(share) + special.entr(1 - share) + share * np.log(num_classes - 1))


def _smallest_entropy(share: np.ndarray) -> Float[np.ndarray, "..."]:
    """Smallest entropy where the leading class lacks a share: as many classes as possible that are just as likely, and a rest."""
    lead = np.maximum(1 - share, 1e-12)
    equals = np.floor(1 / lead * (1 + 1e-12))
    return np.asarray(equals * special.entr(lead) + special.entr(np.clip(1 - equals * lead, 0, 1)))


def _largest_plug_in(strays: np.ndarray, draws: int, num_classes: int) -> Float[np.ndarray, "..."]:
    """Largest plug-in entropy of `draws` votes of which a class lacks `strays`: those spread evenly over the others."""
    others = num_classes - 1
    low, more = strays // others, strays % others
    spread = (others - more) * special.entr(low / draws) + more * special.entr((low + 1) / draws)
    return np.asarray(spread + special.entr(1 - strays / draws))
