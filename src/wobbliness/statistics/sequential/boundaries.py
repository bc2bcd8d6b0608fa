"""Boundaries of group-sequential decisions about W.

All rests on disagreements, the votes for other classes than a given one (see
`wobbliness.statistics.sequential.disagreement`). A decision rejects "W is at least the threshold",
or "W is below it", where the likelihood of the disagreements seen under a mixture of shares is
large compared with their largest likelihood under the rejected hypothesis. How large follows from
the largest number of draws: the required evidence is lowered until the exact probability of a wrong
decision, in the hardest case, is the error rate.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import special

from wobbliness.statistics.sequential import runner_up
from wobbliness.statistics.sequential.disagreement import (
    FEW_DISAGREEMENTS,
    MANY_DISAGREEMENTS,
    UNANIMOUS_WEIGHT,
    log_likelihood_at_least,
    log_likelihood_at_most,
    log_mixture,
    share_of_largest_entropy,
    share_of_smallest_entropy,
    smallest_entropy,
)

CALIBRATION_STEPS = 12  # halvings: the needed evidence to about a thousandth
ABOVE_ERROR_SHARE = 0.4
FEW_DISAGREEMENTS_PATIENT, UNANIMOUS_WEIGHT_PATIENT = ((0.49, 4.0, 160.0), (0.49, 2.0, 30.0)), 0.02
"""The mixture for the true W; keeps error rate for the last draws: fewer images stay undecided."""

DisagreementProbability = Callable[[int, Int[np.ndarray, " S"]], Float[np.ndarray, " S"]]
"""Gives the probability, in the hardest case to be rejected, that the next draw disagrees.

Its arguments are the number of draws and that of the disagreements so far.
"""

LogLikelihood = Callable[[Int[np.ndarray, "..."], Int[np.ndarray, "..."]], Float[np.ndarray, "..."]]
"""Gives the largest log-likelihood of (draws, disagreements), under the rejected hypothesis."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Boundaries:
    """Numbers of disagreements at which an image is decided.

    Disagreements of an image may be split in two, those with the runner-up class and those beyond
    it; tables with a single column do not split them. The last column of a table stands for all
    larger numbers.

    Attributes:
        max_beyond: `(max_draws + 1, B)` after n draws, b of which predicted the class of the first
            disagreement, W is called below the threshold where at most this many others predicted
            another class than draw 1; -1 where no number suffices.
        min_disagreements: `(max_draws + 1, C)` after n draws, c of which predicted neither of the
            two classes predicted most often, W is called not below where the leading class lacks
            at least so many.
    """

    max_beyond: Int[np.ndarray, "D B"]
    min_disagreements: Int[np.ndarray, "D C"]


@lru_cache
def true_boundaries(
    threshold: float, *, num_classes: int, error_rate: float, max_draws: int, group_size: int = 1
) -> Boundaries:
    """Computes boundaries for the true W, that of infinitely many draws.

    Disagreements are split where that can be done (`runner_up`).

    The guarantee and the arguments are those of `plain_boundaries`. The tables take a second to
    work out.
    """
    limits: dict[str, Any] = {
        "num_classes": num_classes,
        "error_rate": error_rate,
        "max_draws": max_draws,
        "group_size": group_size,
    }
    if not runner_up.can_split(threshold, num_classes=num_classes, max_draws=max_draws):
        return plain_boundaries(threshold, **limits)
    return Boundaries(
        max_beyond=runner_up.max_beyond(threshold, **limits),
        min_disagreements=runner_up.min_disagreements(threshold, **limits),
    )


@lru_cache(maxsize=1024)
def plain_boundaries(
    threshold: float, *, num_classes: int, error_rate: float, max_draws: int, group_size: int = 1
) -> Boundaries:
    """Computes boundaries for the true W without splitting disagreements: fast.

    For an image with W at or above the threshold the probability of ever being called below is at
    most `error_rate`, and the other way round. Each is a one-sided statement that spends all of
    `error_rate`, since only one of the two can be wrong.

    Args:
        threshold: nats, above 0 and below log K.
        num_classes: K.
        error_rate: in (0, 1), of each image.
        max_draws: the most draws of an image.
        group_size: draws between two interim analyses; boundaries hold there only, and at the
            last draw.
    """
    # With fewer disagreements than least_share no distribution reaches the threshold.
    least_share = share_of_largest_entropy(np.asarray(threshold), num_classes)
    # With more than most_share none stays below it. Both are the hardest cases of their side.
    most_share = share_of_smallest_entropy(np.asarray(threshold), num_classes)
    below = _Decision(
        mixture=partial(
            log_mixture, shares=FEW_DISAGREEMENTS_PATIENT, unanimous=UNANIMOUS_WEIGHT_PATIENT
        ),
        rejected=partial(log_likelihood_at_least, share=least_share),
        disagreement=lambda _, disagreements: np.full(disagreements.shape, least_share),
        error_rate=error_rate,
    )
    above = _Decision(
        mixture=partial(log_mixture, shares=MANY_DISAGREEMENTS, unanimous=0.0),
        rejected=partial(log_likelihood_at_most, share=most_share),
        disagreement=lambda _, disagreements: np.full(disagreements.shape, most_share),
        error_rate=error_rate,
    )
    return _boundaries(below, above, max_draws, group_size)


def curtailed_boundaries(
    threshold: float, *, num_classes: int, error_rate: float, max_draws: int, group_size: int = 1
) -> Boundaries:
    """Computes boundaries for the plug-in W that all `max_draws` draws together would give.

    The draws of an image come in random order, so the first n are a sample without replacement of
    all. Whatever those are, the probability of a decision that differs from theirs is at most
    `error_rate`.

    Args:
        threshold: nats, above 0.
        num_classes: K.
        error_rate: in (0, 1), of each image.
        max_draws: the number of draws that the threshold is meant for.
        group_size: as for `true_boundaries`.
    """
    # The final votes enter by one number alone, their disagreements with a class, and W is largest
    # and smallest for the most even and the most uneven spread of these.
    disagreements = np.arange(max_draws + 1)
    # Over all final counts: those with which W may reach the threshold, and those with which it
    # must.
    reachable = _largest_plug_in(disagreements, max_draws, num_classes) >= threshold
    certain = smallest_entropy(disagreements / max_draws) >= threshold
    fewest = int(np.argmax(reachable)) if reachable.any() else max_draws + 1
    most = int(np.argmax(certain)) - 1 if certain.any() else max_draws
    return _curtailed_boundaries(
        fewest, most, error_rate=error_rate, max_draws=max_draws, group_size=group_size
    )


@lru_cache(maxsize=1024)
def _curtailed_boundaries(
    fewest: int, most: int, *, error_rate: float, max_draws: int, group_size: int
) -> Boundaries:
    """Computes boundaries for a W decided by two numbers of disagreements.

    W at or above the threshold takes at least `fewest` disagreements with the first class, and W
    below it at most `most` with the leading one.

    Many thresholds share these numbers, so each pair is computed once. Of the error rate "not
    below" may use ABOVE_ERROR_SHARE: such images take few draws anyway, and most of the wrong
    decisions on real ones would be theirs.
    """
    # "Below" counts the draws after the first only, so one draw less is left of the population.
    below = _Decision(
        mixture=partial(log_mixture, shares=FEW_DISAGREEMENTS, unanimous=UNANIMOUS_WEIGHT),
        rejected=partial(_log_hypergeometric, population=max_draws - 1, at_least=fewest),
        disagreement=partial(_chance_without_replacement, population=max_draws - 1, total=fewest),
        error_rate=error_rate,
    )
    above = _Decision(
        mixture=partial(log_mixture, shares=MANY_DISAGREEMENTS, unanimous=0.0),
        rejected=partial(_log_hypergeometric, population=max_draws, at_most=most),
        disagreement=partial(_chance_without_replacement, population=max_draws, total=most),
        error_rate=ABOVE_ERROR_SHARE * error_rate,
    )
    return _boundaries(below, above, max_draws, group_size)


def _chance_without_replacement(
    num_draws: int, disagreements: Int[np.ndarray, " S"], population: int, total: int
) -> np.ndarray:
    """Returns the probability that the next draw disagrees, without replacement.

    `total` of the population disagree, `disagreements` of the `num_draws` draws before did.
    """
    # Clipped, since states that cannot be reached are computed along with the others.
    return np.clip((min(total, population) - disagreements) / (population - num_draws), 0.0, 1.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Decision:
    """One of the two decisions, and the hypothesis that it rejects.

    Attributes:
        mixture: log-likelihood of the disagreements under a mixture of shares.
        rejected: their largest log-likelihood under the rejected hypothesis.
        disagreement: probability that the next draw disagrees, in that hypothesis's hardest case.
        error_rate: the most probability of making the decision in that case.
    """

    mixture: LogLikelihood
    rejected: LogLikelihood
    disagreement: DisagreementProbability
    error_rate: float

    def evidence(self, draws: np.ndarray, disagreements: np.ndarray) -> np.ndarray:
        """Computes the log of the likelihood ratio against the rejected hypothesis."""
        return self.mixture(draws, disagreements) - self.rejected(draws, disagreements)


def _boundaries(below: _Decision, above: _Decision, max_draws: int, group_size: int) -> Boundaries:
    """Computes both boundaries, each at the least evidence that keeps its error rate."""
    draws = np.arange(max_draws + 1)
    is_interim_analysis = (draws % group_size == 0) | (draws == max_draws)
    # Without any draw nothing is decided, whatever the group size.
    may_decide = is_interim_analysis & (draws > 0)
    # One column each: plain boundaries do not split the disagreements.
    return Boundaries(
        max_beyond=_max_disagreements(below, draws, may_decide)[:, None],
        min_disagreements=_min_disagreements(above, draws, may_decide)[:, None],
    )


def _max_disagreements(
    below: _Decision, draws: Int[np.ndarray, " D"], may_decide: Bool[np.ndarray, " D"]
) -> Int[np.ndarray, " D"]:
    """Computes the most disagreements with draw 1 at which W is called below."""
    # Draw 1 only gives the class to disagree with: the evidence is in the draws after it.
    after_first, none = np.maximum(draws - 1, 0), np.zeros_like(draws)

    def boundary(needed: float) -> Int[np.ndarray, " D"]:
        def holds(disagreements: np.ndarray) -> np.ndarray:
            is_possible = disagreements <= after_first
            return np.asarray((below.evidence(after_first, disagreements) >= needed) & is_possible)

        # The largest count with enough evidence: evidence falls as disagreements grow.
        most = np.where(holds(none), _search(holds, none, draws + 1), -1)
        return np.where(may_decide, most, -1)

    return _calibrated(below, boundary, lambda limits, n, s: s <= limits[n + 1], len(draws) - 2)


def _min_disagreements(
    above: _Decision, draws: Int[np.ndarray, " D"], may_decide: Bool[np.ndarray, " D"]
) -> Int[np.ndarray, " D"]:
    """Computes the fewest votes that the leading class lacks at which W is called not below."""
    never = len(draws)  # more disagreements than there are draws

    def boundary(needed: float) -> Int[np.ndarray, " D"]:
        def holds(disagreements: np.ndarray) -> np.ndarray:
            return np.asarray(above.evidence(draws, disagreements) >= needed)

        # The smallest count with enough evidence: evidence grows with the disagreements.
        least = np.where(holds(draws), _search(holds, draws, np.full_like(draws, -1)), never)
        return np.where(may_decide, least, never)

    return _calibrated(above, boundary, lambda limits, n, s: s >= limits[n], len(draws) - 1)


def _calibrated(
    decision: _Decision,
    boundary: Callable[[float], Int[np.ndarray, " D"]],
    is_crossed: Callable[[np.ndarray, int, np.ndarray], np.ndarray],
    num_draws: int,
) -> Int[np.ndarray, " D"]:
    """Returns the boundary of the least evidence with which the decision keeps its error rate."""

    def chance(needed: float) -> float:
        # In the hardest case every decision is a wrong one: its chance is that of crossing.
        crossed = partial(is_crossed, boundary(needed))
        return _crossing_probability(crossed, num_draws, decision.disagreement)

    return boundary(_smallest_evidence(chance, decision.error_rate))


def _smallest_evidence(chance: Callable[[float], float], error_rate: float) -> float:
    """Finds the least log-evidence for which a wrong decision has at most the error rate.

    Ville's inequality requires log(1 / error_rate), which is right for any number of draws and more
    than needed for a known one.
    """
    # Bisection between Ville's bound and no evidence at all. `sufficient` always keeps the error
    # rate, so the answer does, however few the steps.
    sufficient, insufficient = -np.log(error_rate), 0.0
    for _ in range(CALIBRATION_STEPS):
        middle = (sufficient + insufficient) / 2
        sufficient, insufficient = (
            (middle, insufficient) if chance(middle) <= error_rate else (sufficient, middle)
        )
    return float(sufficient)


def _crossing_probability(
    is_crossed: Callable[[int, np.ndarray], np.ndarray],
    num_draws: int,
    disagreement: DisagreementProbability,
) -> float:
    """Computes the exact probability that a sequence of draws ever crosses a boundary."""
    disagreements, crossed = np.arange(num_draws + 1), 0.0
    # inside[s]: probability of s disagreements so far, without any crossing before.
    inside = np.where(disagreements == 0, 1.0, 0.0)
    for n in range(num_draws + 1):
        # What has crossed leaves the process; what is left takes one more draw.
        out = is_crossed(n, disagreements) & (disagreements <= n)
        crossed += float(inside[out].sum())
        inside[out] = 0.0
        if n < num_draws:
            # One draw: from s to s + 1 disagreements, or not.
            one_more = inside * disagreement(n, disagreements)
            inside -= one_more
            inside[1:] += one_more[:-1]
    return crossed


def _search(
    holds: Callable[[np.ndarray], np.ndarray], yes: np.ndarray, no: np.ndarray
) -> np.ndarray:
    """Finds the integer next to `no` for which a monotone statement still holds.

    Searches between `yes`, where it holds, and `no`, where it does not.
    """
    # Bisection over all rows at a time; rows that are done stay as they are.
    while (np.abs(yes - no) > 1).any():
        middle = (yes + no) // 2
        holding = holds(np.clip(middle, 0, None)) & (np.abs(yes - no) > 1)
        yes, no = (
            np.where(holding, middle, yes),
            np.where(holding | (np.abs(yes - no) <= 1), no, middle),
        )
    return yes


def _log_hypergeometric(
    draws: np.ndarray,
    disagreements: np.ndarray,
    population: int,
    *,
    at_least: int = 0,
    at_most: int | None = None,
) -> Float[np.ndarray, "..."]:
    """Computes the largest log-probability of the draws in order, without replacement.

    The number of disagreements in the population lies within the limits.
    """
    limit = population if at_most is None else min(at_most, population)
    # The mode over the population's number of disagreements, then moved into the limits: the
    # probability is unimodal in that number, so the nearest limit is the likeliest within them.
    likeliest = np.floor(disagreements * (population + 1) / np.maximum(draws, 1))
    total = np.clip(likeliest, min(at_least, population), limit)
    left, disagreements_left = population - draws, total - disagreements
    # The rest of the population must hold the rest of the disagreements.
    possible = (disagreements_left >= 0) & (disagreements_left <= left) & (at_least <= population)
    # P(order) = C(left, disagreements left) / C(population, total); NaN where it is impossible.
    with np.errstate(invalid="ignore"):
        value = _log_choose(
            left, np.clip(disagreements_left, 0, np.maximum(left, 0))
        ) - _log_choose(population, total)
    return np.where(possible, value, -np.inf)


def _log_choose(total: np.ndarray | int, chosen: np.ndarray) -> Float[np.ndarray, "..."]:
    return np.asarray(
        special.gammaln(np.asarray(total) + 1)
        - special.gammaln(chosen + 1)
        - special.gammaln(total - chosen + 1)
    )


def _largest_plug_in(
    disagreements: np.ndarray, draws: int, num_classes: int
) -> Float[np.ndarray, "..."]:
    """Computes the largest plug-in entropy of votes of which the leading class lacks some.

    The missing votes are spread evenly over the other classes.
    """
    others = num_classes - 1
    # As even as whole votes can be: `more` classes have one vote more than the others.
    low, more = disagreements // others, disagreements % others
    spread = (others - more) * special.entr(low / draws) + more * special.entr((low + 1) / draws)
    return np.asarray(spread + special.entr(1 - disagreements / draws))
