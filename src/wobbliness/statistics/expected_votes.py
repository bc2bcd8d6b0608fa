"""Votes that clean inputs give, by their predicted class: the reference for others.

Perturbed copies of a clean input that are predicted otherwise go to classes of its own kind. The
mean votes of the clean inputs of each predicted class say where, and how often.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import special

# Inputs that all classes together lend to each class; a rare one has little else.
POOLED_INPUTS = 5
# Votes that are spread evenly over the classes, so that no class is impossible.
SPREAD_VOTES = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class ExpectedVotes:
    """Sums of the votes of clean inputs under each perturbation.

    Attributes:
        sums: `(S, K, K)`: under a perturbation, of inputs of a predicted class, the shares of the
            votes for each class, summed over the inputs.
        numbers: `(K,)` inputs of each predicted class.
    """

    sums: Float[np.ndarray, "S K K"]
    numbers: Int[np.ndarray, " K"]

    @classmethod
    def among(
        cls, counts: Int[np.ndarray, "S N K"], label: Int[np.ndarray, " N"]
    ) -> "ExpectedVotes":
        """Sums the votes of clean inputs.

        Args:
            counts: votes under each perturbation.
            label: clean predictions, below K.
        """
        shares, num_classes = shares_of(counts), counts.shape[2]
        sums = np.zeros((len(counts), num_classes, num_classes))
        for row, own in enumerate(label):
            sums[:, own] += shares[:, row]
        return cls(sums=sums, numbers=np.bincount(label, minlength=num_classes))

    def of(
        self,
        label: Int[np.ndarray, " N"],
        draws: Int[np.ndarray, " S"],
        *,
        without: Int[np.ndarray, "S N K"] | None = None,
    ) -> Float[np.ndarray, "S N K"]:
        """Returns the expected shares of the votes of inputs; each row adds up to 1, none is 0.

        q = (sum of the class + POOLED_INPUTS * pooled) / (inputs of the class + POOLED_INPUTS),
        where the pooled input agrees with its class as often as all do, and goes to the other
        classes as often as all inputs do. `SPREAD_VOTES` of the draws are spread evenly.

        Args:
            label: clean predictions, below K.
            draws: of each perturbation.
            without: votes of the inputs themselves where they are among those summed: an input is
                not compared with itself.
        """
        own = np.zeros(()) if without is None else shares_of(without)
        num_own = 0 if without is None else 1
        pooled = self._pooled(label, own)
        numbers = (self.numbers[label] - num_own)[:, None]
        mean = (self.sums[:, label] - own + POOLED_INPUTS * pooled) / (numbers + POOLED_INPUTS)
        weight = draws[:, None, None]
        return np.asarray((mean * weight + SPREAD_VOTES / mean.shape[2]) / (weight + SPREAD_VOTES))

    def _pooled(
        self, label: Int[np.ndarray, " N"], own: Float[np.ndarray, "..."]
    ) -> Float[np.ndarray, "S N K"]:
        """Returns the shares of the votes of one input that all classes lend."""
        num_classes = self.sums.shape[2]
        # All agree with their own class in one share, whichever it is.
        kept = np.trace(self.sums, axis1=1, axis2=2) / max(self.numbers.sum(), 1)
        rest = np.maximum(self.sums.sum(axis=1)[:, None] - own, 0) + 1 / num_classes
        is_own = np.eye(num_classes, dtype=bool)[label]
        rest = np.where(is_own, 0, rest)
        rest *= (1 - kept)[:, None, None] / rest.sum(axis=2, keepdims=True)
        return np.asarray(np.where(is_own, kept[:, None, None], rest))

    def widened(self, num_classes: int) -> "ExpectedVotes":
        """Returns the same for more classes, of which none was seen."""
        more = num_classes - self.sums.shape[2]
        if more <= 0:
            return self
        sums = np.pad(self.sums, ((0, 0), (0, more), (0, more)))
        return ExpectedVotes(sums=sums, numbers=np.pad(self.numbers, (0, more)))


def shares_of(counts: Int[np.ndarray, "... K"]) -> Float[np.ndarray, "... K"]:
    """Returns votes divided by their number."""
    return np.asarray(counts / counts.sum(axis=-1, keepdims=True))


def deviance(
    counts: Int[np.ndarray, "... K"], expected: Float[np.ndarray, "... K"]
) -> Float[np.ndarray, "..."]:
    """Computes the Kullback-Leibler divergence of the votes from expected shares, in nats.

    sum over k of p_k ln(p_k / q_k), p the shares of the votes: 0 where they are as expected. Times
    2 n it is the likelihood-ratio statistic G of n votes.

    Args:
        counts: votes.
        expected: shares that add up to 1; infinite where one is 0 that got votes.
    """
    shares = shares_of(counts)
    # Never below 0 but for rounding.
    return np.asarray(np.maximum(special.rel_entr(shares, expected).sum(axis=-1), 0))
