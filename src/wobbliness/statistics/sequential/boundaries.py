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
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float, Int
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

CALIBRATION_STEPS = 12
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
    if not runner_up.can_split(threshold, num_classes=num_classes, max_draws=max_draws):
        return plain_boundaries(
            threshold,
            num_classes=num_classes,
            error_rate=error_rate,
            max_draws=max_draws,
            group_size=group_size,
        )
    limits: dict[str, Any] = {
        "num_classes": num_classes,
        "error_rate": error_rate,
        "max_draws": max_draws,
    }
    return Boundaries(
        max_beyond=runner_up.max_beyond(threshold, **limits, group_size=group_size),
        min_disagreements=runner_up.min_disagreements(threshold, **limits, group_size=group_size),
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
    return _boundaries(
        lambda draws, disagreements: log_likelihood_at_least(draws, disagreements, least_share),
        lambda draws, disagreements: log_likelihood_at_most(draws, disagreements, most_share),
        lambda _, disagreements: np.full(disagreements.shape, least_share),
        lambda _, disagreements: np.full(disagreements.shape, most_share),
        few_disagreements=FEW_DISAGREEMENTS_PATIENT,
        unanimous_weight=UNANIMOUS_WEIGHT_PATIENT,
        error_rate=error_rate,
        max_draws=max_draws,
        group_size=group_size,
    )


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
    return _boundaries(
        lambda n, s: _log_hypergeometric(n, s, max_draws - 1, at_least=fewest),
        lambda n, s: _log_hypergeometric(n, s, max_draws, at_most=most),
        lambda n, s: _chance_without_replacement(n, s, max_draws - 1, fewest),
        lambda n, s: _chance_without_replacement(n, s, max_draws, most),
        few_disagreements=FEW_DISAGREEMENTS,
        unanimous_weight=UNANIMOUS_WEIGHT,
        error_rate=error_rate,
        above_error_share=ABOVE_ERROR_SHARE,
        max_draws=max_draws,
        group_size=group_size,
    )


def _chance_without_replacement(
    num_draws: int, disagreements: Int[np.ndarray, " S"], population: int, total: int
) -> np.ndarray:
    """Returns the probability that the next draw disagrees, without replacement.

    `total` of the population disagree, `disagreements` of the `num_draws` draws before did.
    """
    return np.clip((min(total, population) - disagreements) / (population - num_draws), 0.0, 1.0)


def _boundaries(
    rejected_below: LogLikelihood,
    rejected_above: LogLikelihood,
    disagreement_below: DisagreementProbability,
    disagreement_above: DisagreementProbability,
    *,
    few_disagreements: tuple[tuple[float, float, float], ...],
    unanimous_weight: float,
    error_rate: float,
    max_draws: int,
    group_size: int,
    above_error_share: float = 1.0,
) -> Boundaries:
    """Computes both boundaries, each at the least evidence that keeps its error rate."""
    draws = np.arange(max_draws + 1)
    after_first, is_interim_analysis = (
        np.maximum(draws - 1, 0),
        (draws % group_size == 0) | (draws == max_draws),
    )

    # "Below" counts the disagreements with draw 1 among the draws after it.
    def max_below(needed: float) -> Int[np.ndarray, " D"]:
        def holds(disagreements: np.ndarray) -> np.ndarray:
            evidence = log_mixture(
                after_first, disagreements, few_disagreements, unanimous_weight
            ) - rejected_below(after_first, disagreements)
            return np.asarray((evidence >= needed) & (disagreements <= after_first))

        # The largest count with enough evidence: evidence falls as disagreements grow.
        first_kept = np.where(
            holds(np.zeros_like(draws)), _search(holds, np.zeros_like(draws), draws + 1), -1
        )
        return np.where(is_interim_analysis & (draws > 0), first_kept, -1)

    # "Not below" counts the votes that the leading class lacks, among all draws.
    def min_above(needed: float) -> Int[np.ndarray, " D"]:
        def holds(disagreements: np.ndarray) -> np.ndarray:
            return np.asarray(
                log_mixture(draws, disagreements, MANY_DISAGREEMENTS, 0.0)
                - rejected_above(draws, disagreements)
                >= needed
            )

        # The smallest count with enough evidence: evidence grows with the disagreements.
        last_kept = np.where(
            holds(draws), _search(holds, draws, np.full_like(draws, -1)), max_draws + 1
        )
        return np.where(is_interim_analysis & (draws > 0), last_kept, max_draws + 1)

    def chance_below(needed: float) -> float:
        boundary = max_below(needed)
        return _crossing_probability(
            lambda n, disagreements: disagreements <= boundary[n + 1],
            max_draws - 1,
            disagreement_below,
        )

    def chance_above(needed: float) -> float:
        boundary = min_above(needed)
        return _crossing_probability(
            lambda n, disagreements: disagreements >= boundary[n], max_draws, disagreement_above
        )

    return Boundaries(
        max_beyond=max_below(_smallest_evidence(chance_below, error_rate))[:, None],
        min_disagreements=min_above(
            _smallest_evidence(chance_above, above_error_share * error_rate)
        )[:, None],
    )


def _smallest_evidence(chance: Callable[[float], float], error_rate: float) -> float:
    """Finds the least log-evidence for which a wrong decision has at most the error rate.

    Ville's inequality requires log(1 / error_rate), which is right for any number of draws and more
    than needed for a known one.
    """
    # Bisection; `sufficient` always keeps the error rate, so the answer does.
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
    disagreements = np.arange(num_draws + 1)
    # inside[s]: probability of s disagreements so far, without any crossing before.
    inside, crossed = np.zeros(num_draws + 1), 0.0
    inside[0] = 1.0
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
    # The mode over the population's number of disagreements, then moved into the limits.
    likeliest = np.floor(disagreements * (population + 1) / np.maximum(draws, 1))
    total = np.clip(likeliest, min(at_least, population), limit)
    left, disagreements_left = population - draws, total - disagreements
    # The rest of the population must hold the rest of the disagreements.
    possible = (disagreements_left >= 0) & (disagreements_left <= left) & (at_least <= population)
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
