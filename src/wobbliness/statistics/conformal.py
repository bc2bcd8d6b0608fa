"""Class-conditional conformal scores of W and split-conformal p-values.

How unusual a smooth input is among clean inputs of the same label.

At one sigma the rank of W is the share of clean reference inputs with a smaller W, ties counted
half. Classes differ greatly in W, so the reference is the inputs that are predicted as the same
class; what a rare label lacks is lent by all labels together, with the weight of `POOLED_INPUTS`
inputs. Over a sweep the score of an input is its largest rank: only an input that is smooth for its
label at every sigma scores low. So a limit on the score is a limit on W at each sigma, and the
first sigma at which W is too large decides the case.

Votes are counts, and many clean inputs share W = 0. Equal scores are put in order by a randomised
tie-breaker, a number hashed from image and seed; without it either none or all of them would be
flagged, and the false-positive rate would not be the stated one.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt64

POOLED_INPUTS = 10
RANK_STEPS, TIE_STEPS = 2**20, 2**24  # a rank and a tie-breaker together are exact in float64
# nats; far below the gap between two vote counts' entropies, far above their rounding
ROUNDING = 5e-10


@dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """Clean inputs among which ranks are taken.

    Attributes:
        wobbliness: `(S, R)` nats, W at each sigma.
        label: `(R,)` the clean prediction of each input.
    """

    wobbliness: Float[np.ndarray, "S R"]
    label: Int[np.ndarray, " R"]

    def scores(
        self,
        wobbliness: Float[np.ndarray, "S N"],
        label: Int[np.ndarray, " N"],
        ties: Float[np.ndarray, " N"],
    ) -> Float[np.ndarray, " N"]:
        """Returns the largest rank over the sigmas; low where an input is smooth at every sigma.

        `(N,)` in [0, 1). Ranks are among reference inputs of the same label.

        Args:
            wobbliness: `(S, N)` nats.
            label: `(N,)` clean predictions.
            ties: `(N,)` from `tie_breakers`.
        """
        steps = np.empty(wobbliness.shape, dtype=np.int64)
        for index, ranks, same in self._by_label(label):
            steps[index, same] = ranks.of(wobbliness[index, same])
        return np.asarray((steps.max(axis=0) + ties) / RANK_STEPS)

    def thresholds(
        self, limit: float, label: Int[np.ndarray, " N"], ties: Float[np.ndarray, " N"]
    ) -> Float[np.ndarray, "S N"]:
        """Returns the limits of W below which, at every sigma, the score is below the limit.

        `(S, N)` nats; not positive where no W is low enough.
        """
        # score < limit, that is (step + tie) / RANK_STEPS < limit: the largest whole step for which
        # it holds.
        most = np.ceil(limit * RANK_STEPS - ties) - 1
        thresholds = np.empty((len(self.wobbliness), len(label)))
        for index, ranks, same in self._by_label(label):
            thresholds[index, same] = ranks.threshold(most[same])
        return thresholds

    def _by_label(self, label: Int[np.ndarray, " N"]) -> "Iterator[tuple[int, _Ranks, np.ndarray]]":
        """Yields the index of the sigma, the ranks, and the inputs that they are for."""
        for value in np.unique(label):
            for index, w in enumerate(self.wobbliness):
                yield index, _Ranks.among(w[self.label == value], w), np.flatnonzero(label == value)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Ranks:
    """Rising step function of W: `heights[i]` on [`edges[i - 1]`, `edges[i]`)."""

    edges: Float[np.ndarray, " E"]
    heights: Int[np.ndarray, " H"]

    @classmethod
    def among(cls, same: Float[np.ndarray, " Y"], pooled: Float[np.ndarray, " R"]) -> "_Ranks":
        """Builds the ranks among the W of one label, filled up with those of all labels.

        A narrow step at each value seen, wide ones between.
        """
        # Values of W closer than rounding are one value: each gets a step from -ROUNDING to
        # +ROUNDING.
        seen = np.unique(pooled)
        # the same votes for other classes round differently
        seen = seen[np.r_[True, np.diff(seen) > 2 * ROUNDING]]
        edges = np.stack([seen - ROUNDING, seen + ROUNDING], axis=1).ravel()
        weight = len(same) + POOLED_INPUTS
        # Mean of the label's own shares and the pooled ones, weighted as POOLED_INPUTS more inputs.
        shares = (
            len(same) * _shares(same, edges) + POOLED_INPUTS * _shares(pooled, edges)
        ) / weight
        return cls(edges=edges, heights=np.floor(shares * (RANK_STEPS - 1)).astype(np.int64))

    def of(self, wobbliness: Float[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
        return np.asarray(self.heights[np.searchsorted(self.edges, wobbliness, side="right")])

    def threshold(self, most: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
        """Returns the limit of W below which the rank is at most the given one, `(N,)`."""
        # Heights ascend: so many of the steps, from the first, are at most the given one.
        num_allowed = np.searchsorted(self.heights, most, side="right")
        return np.asarray(np.r_[-np.inf, self.edges, np.inf][num_allowed])


def tie_breakers(keys: UInt64[np.ndarray, " N"], seed: int) -> Float[np.ndarray, " N"]:
    """Returns randomised tie-breakers, a pure function of image and seed.

    `(N,)`, uniform in [0, 1).

    Args:
        keys: `(N,)` of the images (`wobbliness.image_keys`).
        seed: non-negative integer.
    """
    digests = [
        hashlib.blake2b(f"{seed} {key}".encode(), digest_size=8, person=b"tie").digest()
        for key in keys
    ]
    return np.array(
        [int.from_bytes(digest, "little") % TIE_STEPS / TIE_STEPS for digest in digests]
    )


def conformal_pvalues(
    scores: Float[np.ndarray, " N"], calibration: Float[np.ndarray, " C"]
) -> Float[np.ndarray, " N"]:
    """Computes split-conformal p-values (Vovk et al. 2005).

    `(N,)`: (1 + number of calibration scores at most as high) / (C + 1).

    For an input exchangeable with the calibration inputs P(p <= a) <= a for every a in [0, 1],
    whatever the distribution, over the draw of both; without ties it is floor(a (C + 1)) / (C + 1).

    Args:
        scores: `(N,)` low where suspicious.
        calibration: `(C,)` ascending scores of clean inputs that served for nothing else.
    """
    # Ranks among the calibration scores; the input itself is the one more in both counts.
    at_most = np.searchsorted(calibration, scores, side="right")
    return np.asarray((1 + at_most) / (len(calibration) + 1))


def score_limit(calibration: Float[np.ndarray, " C"], false_positive_rate: float) -> float:
    """Returns the score below which the p-value is at most the rate.

    It is 0, below which no score is, where no p-value is so small.
    """
    rank = num_flagged(len(calibration), false_positive_rate)
    return float(calibration[rank - 1]) if rank else 0.0


def num_flagged(num_calibration: int, false_positive_rate: float) -> int:
    """Returns the rank of the calibration score at the rate: floor(rate * (C + 1)).

    Of the calibration inputs and one more, so many have, in expectation, a p-value of at most the
    rate.
    """
    return int(np.floor(false_positive_rate * (num_calibration + 1) + ROUNDING))


def _shares(
    values: Float[np.ndarray, " V"], edges: Float[np.ndarray, " E"]
) -> Float[np.ndarray, " H"]:
    """Returns, for each step, the share of values before it, those in it counted half.

    0 where there are no values.
    """
    # before[i]: values below edge i, with 0 and all at the ends; a step's own values count half.
    before = np.r_[0, np.searchsorted(np.sort(values), edges), len(values)]
    return np.asarray((before[:-1] + before[1:]) / (2 * max(len(values), 1)))
