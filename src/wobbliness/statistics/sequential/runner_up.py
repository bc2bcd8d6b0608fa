"""Boundaries that split the disagreements between the runner-up and all other classes.

Disagreements with one class bear less entropy than as many with several, so a decision about the
true W may come sooner where it is known how many of them predicted the runner-up and how many yet
other classes. Three shares describe an image: of a leading class, of the runner-up, and of the
rest. The rejected hypothesis is bounded by a curve of such shares, one point for each split of the
disagreements; the probability of a wrong decision is computed exactly, for the corners between
neighbouring points of the curve, from which every point beyond the curve differs by more
disagreements (or by fewer) of both kinds. So it holds for all shares, not for the points alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import special

from wobbliness.statistics.sequential.disagreement import MANY_DISAGREEMENTS, bisect, log_mixture

MAX_DRAWS = 1000  # beyond them, and beyond these counts at the border, the tables would be large
MAX_RUNNER_UP_VOTES, MAX_VOTES_BEYOND = 128, 48
NUM_BEYOND_COLUMNS = 24
# dense where errors are likeliest
SPLITS = (0, 0.01, 0.03, 0.06, 0.1, 0.14, 0.18, 0.22, *np.arange(0.25, 0.99, 0.025))
# weight of no disagreement: little, which keeps error rate for the last draws
UNANIMOUS_WEIGHT = 0.02
# Beta shares of disagreements: first parameter, mean as a part of the largest rejected share
FEW_SHARE = (2.0, 0.6)
# (weight, a, b) of Beta splits: mostly disagreements with one class
FEW_SPLITS = ((0.6, 0.3, 3.0), (0.4, 1.0, 1.0))
MANY_SPLITS = ((0.5, 1.0, 1.0), (0.5, 0.5, 2.0))
CALIBRATION_STEPS = 8
EVIDENCE_MARGIN = 2  # log-evidence beyond Ville's bound, tried before no decision is made at all

Table = Int[np.ndarray, "D C"]
Evidence = Float[np.ndarray, "D X Y"]


def can_split(threshold: float, *, num_classes: int, max_draws: int) -> bool:
    """Checks whether these tables can be made.

    They need more than two classes, W below log 2, so that a class leads, and not too many draws.
    """
    if num_classes < 3 or threshold >= np.log(2) or max_draws > MAX_DRAWS:
        return False
    return (
        3 * _share_of_one(threshold) * max_draws < MAX_RUNNER_UP_VOTES
        and _share_of_many(threshold, num_classes) < MAX_VOTES_BEYOND / max_draws
    )


def max_beyond(
    threshold: float, *, num_classes: int, error_rate: float, max_draws: int, group_size: int
) -> Table:
    """Computes the largest number of votes beyond the runner-up at which W is called below.

    `(max_draws + 1, B)`, after n draws.

    The second index is the number of votes for the class of the first disagreement. Disagreements
    are those of the draws 2 ... n that predict another class than draw 1. -1 where no number
    suffices. The probability of calling an image with W at or above the threshold below it is at
    most `error_rate`, given the classes of draw 1 and of the first disagreement, whichever they
    are.
    """
    curve = _Curve.reaching(threshold, num_classes)
    num_second, num_beyond = curve.num_counts_below(max_draws)
    draws, second, beyond = _axes(max_draws, num_second, num_beyond)  # draws after the first one
    # The first disagreement is of the second class by definition, so beyond > 0 needs second > 0.
    is_possible = (second + beyond <= draws) & ((second > 0) | (beyond == 0))
    evidence = np.where(is_possible, _evidence_below(curve, draws, second, beyond), np.inf)
    is_interim_analysis = _is_interim_analysis(draws + 1, max_draws, group_size)
    corners = curve.corners_below()
    chosen = _calibrated(
        lambda needed: _closed_below(evidence >= needed) & is_interim_analysis,
        lambda kept: corners.chance(kept, np.arange(max_draws), first_defines_second=True),
        error_rate,
    )
    return np.concatenate([np.full((1, num_second), -1), (chosen & is_possible).sum(axis=2) - 1])


def min_disagreements(
    threshold: float, *, num_classes: int, error_rate: float, max_draws: int, group_size: int
) -> Table:
    """Computes the fewest votes that the leading class lacks at which W is called not below.

    `(max_draws + 1, C)`, after n draws.

    The second index is the number of draws that predicted neither of the two leading classes; the
    last one stands for all larger ones. `max_draws + 1` where no number suffices. The probability
    of calling an image with W below the threshold not below it is at most `error_rate`.
    """
    curve = _Curve.staying_below(threshold, num_classes)
    num_disagreements = int(np.ceil(3 * curve.shares[0] * max_draws)) + 3
    draws, disagreements, beyond = _axes(max_draws + 1, num_disagreements, NUM_BEYOND_COLUMNS)
    is_possible = (disagreements <= draws) & (beyond <= disagreements)
    evidence = np.where(is_possible, _evidence_above(curve, draws, disagreements, beyond), np.inf)
    may_decide = _is_interim_analysis(draws, max_draws, group_size) & (draws > 0)
    corners = curve.corners_above()
    chosen = _calibrated(
        lambda needed: _closed_above(evidence >= needed) & may_decide,
        lambda kept: corners.chance(kept, np.arange(max_draws + 1), first_defines_second=False),
        error_rate,
    )
    return np.where(chosen.any(axis=1), chosen.argmax(axis=1), max_draws + 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Curve:
    """Border of the rejected hypothesis: the share of disagreements where W is at the threshold.

    Attributes:
        splits: ascending, the part of the disagreements that is beyond the second class.
        shares: of disagreements among all votes, one for each split.
    """

    splits: Float[np.ndarray, " R"]
    shares: Float[np.ndarray, " R"]

    @classmethod
    def reaching(cls, threshold: float, num_classes: int) -> "_Curve":
        """Finds for each split the least share at which W reaches the threshold."""
        # At the split (K - 2) / (K - 1) all other classes are equally likely, where W is largest.
        splits = np.unique([*SPLITS, (num_classes - 2) / (num_classes - 1), 1.0])
        most = np.full(len(splits), 0.5)
        shares = _shares_at(lambda share: _largest(share, splits, num_classes) >= threshold, most)
        return cls(splits=splits, shares=shares)

    @classmethod
    def staying_below(cls, threshold: float, num_classes: int) -> "_Curve":
        """Finds for each split the least share at which W can no longer stay below."""
        # Beyond this split the second class would not be the likeliest of the others.
        largest_split = (num_classes - 2) / (num_classes - 1)
        splits = np.array([*(split for split in SPLITS if split < largest_split), largest_split])
        # Up to a share of 1 / (2 - split) the leading class is the likeliest of all.
        shares = _shares_at(lambda share: _smallest(share, splits) >= threshold, 1 / (2 - splits))
        return cls(splits=splits, shares=shares)

    def num_counts_below(self, max_draws: int) -> tuple[int, int]:
        """Returns how many counts, with the second class and beyond, the table has."""
        # Beyond the border's mean nothing speaks for a smaller share; the last counts stand for
        # all larger ones and decide nothing.
        most_beyond = self.shares.max(where=self.splits > 0.5, initial=0)
        return int(np.ceil(self.shares[0] * max_draws)) + 3, int(
            np.ceil(most_beyond * max_draws)
        ) + 3

    def corners_below(self) -> "_Corners":
        """Returns corners from which every point beyond the curve differs by more of both kinds."""
        # Of two neighbours on the curve the smaller second share and the smaller rest.
        second, beyond = self.shares * (1 - self.splits), self.shares * self.splits
        return _Corners(second=second[1:], beyond=beyond[:-1])

    def corners_above(self) -> "_Corners":
        """Returns corners that exceed every point within the curve in total and in split."""
        # Of two neighbours on the curve the larger total share and the larger split.
        total, split = self.shares[:-1], self.splits[1:]
        return _Corners(second=total * (1 - split), beyond=total * split)


def _evidence_below(
    curve: _Curve, draws: np.ndarray, second: np.ndarray, beyond: np.ndarray
) -> Evidence:
    """Computes the log of the likelihood ratio against "W reaches the threshold"."""
    disagreements = second + beyond
    first, mean = FEW_SHARE[0], FEW_SHARE[1] * curve.shares[0]
    few = ((1 - UNANIMOUS_WEIGHT, first, first / mean),)
    mixture = log_mixture(draws, disagreements, few, UNANIMOUS_WEIGHT)
    # The first disagreement defines the second class and tells nothing of the split: one less.
    telling = np.maximum(second - 1, 0)
    mixture = mixture + _log_split(telling, beyond, FEW_SPLITS)
    rejected = _largest_likelihood(draws, telling, beyond, disagreements, curve, np.maximum)
    return np.asarray(mixture - rejected)


def _evidence_above(
    curve: _Curve, draws: np.ndarray, disagreements: np.ndarray, beyond: np.ndarray
) -> Evidence:
    """Computes the log of the likelihood ratio against "W is below the threshold"."""
    second = np.maximum(disagreements - beyond, 0)
    mixture = log_mixture(draws, disagreements, MANY_DISAGREEMENTS, 0.0)
    mixture = mixture + _log_split(second, beyond, MANY_SPLITS)
    rejected = _largest_likelihood(draws, second, beyond, disagreements, curve, np.minimum)
    return np.asarray(mixture - rejected)


def _closed_below(enough: Bool[np.ndarray, "D X Y"]) -> Bool[np.ndarray, "D X Y"]:
    """Returns the counts for which all with fewer disagreements have enough evidence, too.

    Fewer of either kind are never worse. Writes into its argument.
    """
    # A last count stands for all larger ones, so no decision may rest on it.
    enough[:, -1], enough[:, :, -1] = False, False
    return np.asarray(np.logical_and.accumulate(np.logical_and.accumulate(enough, axis=2), axis=1))


def _closed_above(enough: Bool[np.ndarray, "D X Y"]) -> Bool[np.ndarray, "D X Y"]:
    """Returns the counts for which all with more disagreements have enough evidence, too.

    More, and more that are of neither leading class, are never worse.
    """
    # From the largest counts down; the last ones stand for all larger ones and may decide.
    reverse = enough[:, ::-1, ::-1]
    kept = np.logical_and.accumulate(np.logical_and.accumulate(reverse, axis=2), axis=1)
    return np.asarray(kept[:, ::-1, ::-1])


@dataclass(frozen=True, kw_only=True, eq=False)
class _Corners:
    """Shares of the runner-up and of the rest in the hardest cases."""

    second: Float[np.ndarray, " R"]
    beyond: Float[np.ndarray, " R"]

    def chance(
        self,
        kept: Bool[np.ndarray, "D X Y"],
        draws: Int[np.ndarray, " D"],
        *,
        first_defines_second: bool,
    ) -> float:
        """Computes the largest exact probability over the corners of ever being within `kept`.

        With `first_defines_second` the first disagreement defines the second class, whatever it is,
        and the counts are of (second, beyond); else they are of (second + beyond, beyond).
        """
        second, beyond = self.second[:, None, None], self.beyond[:, None, None]
        inside, crossed = np.zeros((len(self.second), *kept.shape[1:])), np.zeros(len(self.second))
        # inside[r, x, y]: probability of the counts so far at corner r, without any decision
        # before.
        inside[:, 0, 0] = 1.0
        for n in draws:
            # One draw: it agrees, or adds one to the second class's votes or to those beyond it.
            if n > 0:
                voted_beyond = inside * beyond
                inside = inside * (1 - second - beyond) + _one_more(inside * second, 1)
                inside += _one_more(
                    voted_beyond if first_defines_second else _one_more(voted_beyond, 1), 2
                )
            if first_defines_second:
                # A first disagreement beyond the second class becomes the second class.
                inside[:, 1, 0] += inside[:, 0, 1]
                inside[:, 0, 1] = 0.0
            if kept[n].any():
                # A decision ends the sequence: its probability is counted once and leaves the
                # process.
                crossed += inside[:, kept[n]].sum(axis=1)
                inside[:, kept[n]] = 0.0
        return float(crossed.max())


def _one_more(inside: Float[np.ndarray, "R X Y"], axis: int) -> Float[np.ndarray, "R X Y"]:
    """Moves probabilities up by one on an axis; the last place stands for all larger counts."""
    moved = np.empty_like(inside)
    ends, before = np.moveaxis(moved, axis, 0), np.moveaxis(inside, axis, 0)
    # Views of the result, so that these assignments fill it.
    ends[0] = 0.0
    ends[1:] = before[:-1]
    ends[-1] += before[-1]
    return moved


def _calibrated(
    region: Callable[[float], Bool[np.ndarray, "D X Y"]],
    chance: Callable[[Bool[np.ndarray, "D X Y"]], float],
    error_rate: float,
) -> Bool[np.ndarray, "D X Y"]:
    """Returns the region of the least evidence whose error probability is at most the rate."""
    sufficient, insufficient = -np.log(error_rate) + EVIDENCE_MARGIN, -1.0
    chosen = region(np.inf)
    for _ in range(CALIBRATION_STEPS):
        # Bisection over the required evidence, as in `boundaries`; the region kept is always valid.
        middle = (sufficient + insufficient) / 2
        tried = region(middle)
        if chance(tried) <= error_rate:
            sufficient, chosen = middle, tried
        else:
            insufficient = middle
    return chosen


def _is_interim_analysis(draws: np.ndarray, max_draws: int, group_size: int) -> np.ndarray:
    return np.asarray((draws % group_size == 0) | (draws == max_draws))


def _axes(
    num_draws: int, num_first: int, num_second: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.arange(num_draws)[:, None, None], np.arange(num_first)[:, None], np.arange(num_second)


def _largest_likelihood(
    draws: np.ndarray,
    second: np.ndarray,
    beyond: np.ndarray,
    disagreements: np.ndarray,
    curve: _Curve,
    limited: np.ufunc,
) -> Evidence:
    """Computes the largest likelihood of the draws in order, over the splits.

    Each split has its likeliest share of disagreements among those to be rejected.
    """
    # Split by split, so that memory holds a single table at a time.
    likelihood = np.full(np.broadcast_shapes(draws.shape, (second + beyond).shape), -np.inf)
    leading = np.maximum(draws - disagreements, 0)
    for share, split in zip(curve.shares, curve.splits, strict=True):
        # The likeliest share is the observed one, moved into the rejected range.
        best = np.minimum(limited(share, disagreements / np.maximum(draws, 1)), 1.0)
        one = special.xlog1py(leading, -best) + special.xlogy(disagreements, best)
        likelihood = np.maximum(
            likelihood, one + special.xlogy(second, 1 - split) + special.xlogy(beyond, split)
        )
    return likelihood


def _log_split(
    second: np.ndarray, beyond: np.ndarray, splits: tuple[tuple[float, float, float], ...]
) -> np.ndarray:
    """Computes the log-probability of the order of the split under a mixture of Beta splits."""
    # A Beta-binomial of the order in which the two kinds came, given how many disagreed.
    parts = [
        np.log(weight) + special.betaln(a + beyond, b + second) - special.betaln(a, b)
        for weight, a, b in splits
    ]
    return np.asarray(special.logsumexp(np.stack(np.broadcast_arrays(*parts)), axis=0))


def _shares_at(
    reaches: Callable[[np.ndarray], np.ndarray], most: Float[np.ndarray, " R"]
) -> Float[np.ndarray, " R"]:
    return bisect(reaches, most, np.zeros(len(most)))


def _share_of_one(threshold: float) -> float:
    """Finds the share of disagreements, all with one class, that bears an entropy."""
    return float(
        _shares_at(lambda share: _smallest(share, np.zeros(1)) >= threshold, np.full(1, 0.5))[0]
    )


def _share_of_many(threshold: float, num_classes: int) -> float:
    """Finds the share of disagreements, over all classes beyond the second, with an entropy."""
    return float(
        _shares_at(
            lambda share: _largest(share, np.ones(1), num_classes) >= threshold, np.full(1, 0.5)
        )[0]
    )


def _largest(share: np.ndarray, split: np.ndarray, num_classes: int) -> np.ndarray:
    """Computes the entropy where the part `split` is spread evenly beyond the second class."""
    beyond = share * split
    spread = special.entr(beyond) + beyond * np.log(num_classes - 2)
    return np.asarray(special.entr(1 - share) + special.entr(share - beyond) + spread)


def _smallest(share: np.ndarray, split: np.ndarray) -> np.ndarray:
    """Computes the entropy where the part `split` is in as few classes as possible.

    None of them is larger than the second.
    """
    second, beyond = share * (1 - split), share * split
    # As many classes at the second's share as fit, and one with the rest.
    equals = np.floor(beyond / np.maximum(second, 1e-300) * (1 + 1e-12))
    rest = np.clip(beyond - equals * second, 0.0, 1.0)
    return np.asarray(
        special.entr(1 - share) + (1 + equals) * special.entr(second) + special.entr(rest)
    )
