"""Permutation test of where the votes of a batch go, against clean inputs of the same predictions.

The votes of clean inputs, by predicted class, say where votes are expected. A batch is unlike them
as far as its votes are less likely under these shares than they are under its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import special

from wobbliness.statistics.expected_votes import POOLED_INPUTS, SPREAD_VOTES, shares_of

# Of the arrays of a page of permutations.
MAX_VALUES = 2_000_000
# Relative; equal divisions of the inputs must tie, in whatever order their votes are summed.
TIE = 1e-9


@dataclass(frozen=True, kw_only=True, eq=False)
class DestinationTest:
    """Result of `destination_test`.

    Attributes:
        statistic: `(S,)` nats, under each perturbation.
        usual: `(S,)` nats, its mean over the permutations.
        pvalues: `(S,)` of each perturbation by itself, not corrected for their number.
        pvalue: of their sum: the test.
        num_permutations: that were drawn.
    """

    statistic: Float[np.ndarray, " S"]
    usual: Float[np.ndarray, " S"]
    pvalues: Float[np.ndarray, " S"]
    pvalue: float
    num_permutations: int


def destination_test(
    counts: Int[np.ndarray, "S N K"],
    label: Int[np.ndarray, " N"],
    is_suspect: Bool[np.ndarray, " N"],
    *,
    num_permutations: int = 1999,
    seed: int = 0,
) -> DestinationTest:
    """Tests whether the votes of suspect inputs go elsewhere than those of clean ones.

    The statistic is the mean over the suspect inputs of n D, the log-likelihood ratio of an input's
    n votes: D = sum over k of p_k ln(p_k / q_k), p its shares of the votes and q those expected of
    the clean inputs of its predicted class (`ExpectedVotes`), whose reference it is no part of.
    Over several perturbations it is summed.

    Who is suspect is permuted among the inputs of each predicted class, and everything, the
    reference included, is computed again; p = (1 + number of permutations with a statistic at least
    as high) / (1 + number of permutations). It is exact for any number of inputs, as long as
    inputs of the same prediction are exchangeable, whatever the share of each class in either
    batch. A class of which there are only clean or only suspect inputs says nothing.

    Args:
        counts: votes under each perturbation, of all inputs.
        label: clean predictions, below K.
        is_suspect: which inputs are.
        num_permutations: drawn at random.
        seed: of the permutations.

    Raises:
        ValueError: there is no suspect input, or no clean one.
    """
    if not 0 < is_suspect.sum() < len(is_suspect):
        raise ValueError("expected suspect inputs and clean ones, got one kind alone")
    inputs = _Inputs.of(counts, label)
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    observed = inputs.statistic(is_suspect[None])[0]
    size = max(1, MAX_VALUES // (inputs.num_values + len(label)))
    pages = _permuted(is_suspect, inputs.own, num_permutations, size, rng)
    drawn = np.concatenate([inputs.statistic(page) for page in pages])
    return DestinationTest(
        statistic=observed,
        usual=drawn.mean(axis=0),
        pvalues=_pvalues(observed, drawn),
        pvalue=float(_pvalues(observed.sum(keepdims=True), drawn.sum(axis=1, keepdims=True))[0]),
        num_permutations=num_permutations,
    )


def _pvalues(
    observed: Float[np.ndarray, " S"], drawn: Float[np.ndarray, "B S"]
) -> Float[np.ndarray, " S"]:
    at_least = drawn >= observed - TIE * (1 + np.abs(observed))
    return np.asarray((1 + at_least.sum(axis=0)) / (1 + len(drawn)))


def _permuted(
    is_suspect: Bool[np.ndarray, " N"],
    own: Int[np.ndarray, " N"],
    num_permutations: int,
    size: int,
    rng: np.random.Generator,
) -> Iterator[Bool[np.ndarray, "B N"]]:
    """Yields pages of permutations of who is suspect, within each predicted class."""
    for first in range(0, num_permutations, size):
        page = np.tile(is_suspect, (min(size, num_permutations - first), 1))
        for rows in map(np.flatnonzero, own == np.unique(own)[:, None]):
            page[:, rows] = rng.permuted(page[:, rows], axis=1)
        yield page


@dataclass(frozen=True, kw_only=True, eq=False)
class _Inputs:
    """Votes of all inputs, clean and suspect.

    Attributes:
        shares: `(S, N, K)` of the votes.
        draws: `(S,)` votes of each input.
        classes: `(L,)` those that are predicted.
        own: `(N,)` place of each input's among them.
        certainty: `(S, N)` sum over k of p_k ln p_k.
    """

    shares: Float[np.ndarray, "S N K"]
    draws: Int[np.ndarray, " S"]
    classes: Int[np.ndarray, " L"]
    own: Int[np.ndarray, " N"]
    certainty: Float[np.ndarray, "S N"]

    @classmethod
    def of(cls, counts: Int[np.ndarray, "S N K"], label: Int[np.ndarray, " N"]) -> "_Inputs":
        classes, own = np.unique(label, return_inverse=True)
        shares = shares_of(counts)
        return cls(
            shares=shares,
            draws=counts[:, 0].sum(axis=1),
            classes=classes,
            own=own,
            certainty=special.xlogy(shares, shares).sum(axis=2),
        )

    @property
    def num_values(self) -> int:
        """The number of expected shares of one permutation."""
        num_perturbations, _, num_classes = self.shares.shape
        return int(num_perturbations * len(self.classes) * num_classes)

    def statistic(self, is_suspect: Bool[np.ndarray, "B N"]) -> Float[np.ndarray, "B S"]:
        """Computes the mean of n D over those that are suspect in each permutation."""
        suspect = is_suspect.astype(np.float64)
        clean = self._sums(1 - suspect)
        numbers = np.stack(
            [(1 - suspect[:, self.own == one]).sum(axis=1) for one in range(len(self.classes))], 1
        )
        # Inputs of one class have the same expected shares: sums of their votes do.
        expected = (self._sums(suspect) * np.log(self._expected(clean, numbers))).sum(axis=(2, 3))
        total = np.einsum("bn,sn->bs", suspect, self.certainty) - expected
        return np.asarray(total * self.draws / suspect.sum(axis=1, keepdims=True))

    def _sums(self, weights: Float[np.ndarray, "B N"]) -> Float[np.ndarray, "B S L K"]:
        """Sums the shares of the inputs of each predicted class."""
        num_perturbations, _, num_classes = self.shares.shape
        sums = np.empty((len(weights), num_perturbations, len(self.classes), num_classes))
        for one in range(len(self.classes)):
            rows = np.flatnonzero(self.own == one)
            sums[:, :, one] = np.tensordot(weights[:, rows], self.shares[:, rows], axes=(1, 1))
        return sums

    def _expected(
        self, sums: Float[np.ndarray, "B S L K"], numbers: Float[np.ndarray, "B L"]
    ) -> Float[np.ndarray, "B S L K"]:
        """Returns the shares of `ExpectedVotes.of`, for many permutations at a time."""
        num_classes = sums.shape[3]
        is_own = np.arange(num_classes) == self.classes[:, None]
        kept = (sums * is_own).sum(axis=(2, 3)) / numbers.sum(axis=1, keepdims=True)
        rest = np.where(is_own, 0, sums.sum(axis=2, keepdims=True) + 1 / num_classes)
        rest = rest * ((1 - kept)[..., None] / rest.sum(axis=3))[..., None]
        pooled = np.where(is_own, kept[..., None, None], rest)
        weight = numbers[:, None, :, None] + POOLED_INPUTS
        mean = (sums + POOLED_INPUTS * pooled) / weight
        draws = self.draws[:, None, None]
        return np.asarray((mean * draws + SPREAD_VOTES / num_classes) / (draws + SPREAD_VOTES))
