"""Votes: the result of a measurement, and the quantities computed from it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt64
from numpy.typing import ArrayLike

from wobbliness.classifiers.execution import Execution, precisions_of
from wobbliness.perturbations.noise.gaussian import Gaussian
from wobbliness.sampling.counting.changed_votes import ChangedVotes
from wobbliness.sampling.score_sums import ScoreSums
from wobbliness.statistics import certificates, entropy, expected_votes

# Of the sum of shares, at most this far from 1.
SHARES_TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True, order=True)
class DrawSpan:
    """Range of draws `first` up to but not including `stop` of the noise of one seed."""

    seed: int
    first: int
    stop: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Votes:
    """Number of times each class was predicted around each image, for one perturbation.

    Attributes:
        counts: `(N, K)` votes; each row sums to the number of draws.
        sigma: standard deviation of Gaussian noise, in pixel units of [0, 1]; None for another
            perturbation.
        perturbation: its name, such as `gaussian-0.1`.
        keys: `(N,)` noise keys of the images.
        spans: which draws were made, by seed.
        executions: how the forward passes were run; several where votes of different runs were
            added.
        clean_label: `(N,)` predictions of the images as they are; None where they are not known.
        scores: sums of the class probabilities; None where they were not asked for.
        changed_votes: what an audit says of votes in checked low precision; None where all votes
            are those of float32.
    """

    counts: Int[np.ndarray, "N K"]
    sigma: float | None
    keys: UInt64[np.ndarray, " N"]
    spans: tuple[DrawSpan, ...]
    executions: tuple[Execution, ...] = ()
    perturbation: str = ""
    clean_label: Int[np.ndarray, " N"] | None = None
    scores: ScoreSums | None = None
    changed_votes: ChangedVotes | None = None

    def __post_init__(self) -> None:
        if not self.perturbation and self.sigma is not None:
            object.__setattr__(self, "perturbation", Gaussian(self.sigma).name)
        # Results are frozen, their arrays included.
        for array in (self.counts, self.keys):
            array.setflags(write=False)

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def draws(self) -> int:
        """Returns the number of noisy copies of each image."""
        return sum(span.stop - span.first for span in self.spans)

    @property
    def seed(self) -> int | None:
        """Returns the seed of the noise; None where votes of several seeds were added."""
        # Spans of several seeds may be added, as long as none overlaps.
        seeds = {span.seed for span in self.spans}
        return seeds.pop() if len(seeds) == 1 else None

    @property
    def execution(self) -> Execution | None:
        """Returns how the forward passes were run.

        None where that differs among votes that were added, or is not known.
        """
        return self.executions[0] if len(self.executions) == 1 else None

    @property
    def probabilities(self) -> Float[np.ndarray, "N K"]:
        """Computes the shares of the votes, `(N, K)`: the estimate of p_k (Eq. 2)."""
        return np.asarray(self.counts / self.draws)

    @property
    def wobbliness(self) -> Float[np.ndarray, " N"]:
        """Computes the paper's W (Eq. 3), the plug-in entropy of the votes.

        `(N,)` nats, from 0 (smooth) to log K.
        """
        return entropy.plug_in_entropy(self.counts)

    @property
    def miller_madow(self) -> Float[np.ndarray, " N"]:
        """Computes W with the Miller-Madow bias correction, `(N,)` nats.

        For comparing different numbers of draws.
        """
        return entropy.miller_madow_entropy(self.counts)

    @property
    def standard_error(self) -> Float[np.ndarray, " N"]:
        """Computes the standard error of W, `(N,)` nats.

        For unanimous votes the 95 % upper bound of W, never a false 0.
        """
        return entropy.entropy_standard_error(self.counts)

    @property
    def label(self) -> Int[np.ndarray, " N"]:
        """Returns the class predicted most often, `(N,)`: the smoothed classifier's prediction.

        The lowest class wins a tie.
        """
        return np.asarray(self.counts.argmax(axis=1))

    def upper_bound(self, confidence: float = 0.95) -> Float[np.ndarray, " N"]:
        """Computes a one-sided upper confidence bound of W, `(N,)` nats."""
        return entropy.entropy_upper_bound(self.counts, confidence=confidence)

    def interval(
        self, confidence: float = 0.95
    ) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
        """Computes a two-sided confidence interval of W: both ends, each `(N,)` nats."""
        # Both ends are one-sided bounds at half the error.
        one_sided = (1 + entropy.checked_confidence(confidence)) / 2
        return (
            entropy.entropy_lower_bound(self.counts, confidence=one_sided),
            entropy.entropy_upper_bound(self.counts, confidence=one_sided),
        )

    def certified_radius(
        self, confidence: float = 0.999, *, label: Int[np.ndarray, " N"] | None = None
    ) -> Float[np.ndarray, " N"]:
        """Computes the L2 radius within which the smoothed prediction cannot change.

        Cohen et al. 2019, Theorem 1.

        R = sigma * Phi^-1(lower bound of p), with the one-sided Clopper-Pearson bound of the
        class's probability. Cohen et al. choose the class from draws of its own; pass such a choice
        as `label` for their procedure. Without it the class is chosen from the same votes, and the
        error is halved to pay for the choice: at most two classes can compete for a majority.

        Args:
            confidence: in (0, 1), of the certificate of each single image.
            label: `(N,)` class of each image, chosen without these votes.

        Returns:
            `(N,)` distances in pixel units of [0, 1]; 0 where no class is certified (the smoothed
            classifier abstains).

        Raises:
            ValueError: the votes are not of Gaussian noise.
        """
        if self.sigma is None:
            raise ValueError(f"expected votes of Gaussian noise, got those of {self.perturbation}")
        lower = certificates.top_probability(self.counts, confidence, label=label)
        # With p at least `lower` of one class all others together have at most the rest: the margin
        # of Theorem 1 is Phi^-1(lower) on both sides.
        return certificates.gaussian_l2_radius(lower, self.sigma)

    def deviance(self, reference: "Votes | ArrayLike") -> Float[np.ndarray, " N"]:
        """Computes the Kullback-Leibler divergence of the votes from those of clean images.

        D = sum over k of p_k ln(p_k / q_k), `(N,)` nats, p the shares of the votes. It is 0 where
        they are as expected and, unlike W, it tells where votes go: 2 n D is the likelihood-ratio
        statistic of n votes.

        Args:
            reference: votes of clean images under the same perturbation, with their clean
                predictions: q is the mean vote of those with the same prediction
                (`wobbliness.statistics.expected_votes`). Or shares q, `(N, K)` or `(K,)`.

        Raises:
            ValueError: clean predictions are not known; shares of another shape, or that do not add
                up to 1.
        """
        if isinstance(reference, Votes):
            return expected_votes.deviance(*self._with_expected(reference))
        shares = np.asarray(reference, np.float64)
        if shares.shape not in ((self.counts.shape[1],), self.counts.shape):
            raise ValueError(
                f"expected shares of shape {self.counts.shape} or {self.counts.shape[1:]}, got "
                f"{shares.shape}"
            )
        if not (shares.min() >= 0 and np.allclose(shares.sum(axis=-1), 1, atol=SHARES_TOLERANCE)):
            raise ValueError("expected shares of at least 0 that add up to 1, got others")
        return expected_votes.deviance(self.counts, shares)

    def _with_expected(
        self, reference: "Votes"
    ) -> tuple[Int[np.ndarray, "N K"], Float[np.ndarray, "N K"]]:
        """Returns the counts, and the shares that clean images of the same prediction lead to."""
        if self.clean_label is None or reference.clean_label is None:
            raise ValueError(
                "expected votes with the clean predictions on both sides, got none; measure with "
                "keep_clean=True"
            )
        # A class may be seen on one side only, or be predicted and get no vote.
        labels = np.concatenate([self.clean_label, reference.clean_label])
        columns = max(self.counts.shape[1], reference.counts.shape[1], int(labels.max()) + 1)
        own, clean = (_padded(votes.counts, columns) for votes in (self, reference))
        expected = expected_votes.ExpectedVotes.among(clean[None], reference.clean_label)
        return own, expected.of(self.clean_label, np.array([self.draws]))[0]

    def __add__(self, other: "Votes") -> "Votes":
        """Adds votes of more draws of the same images at the same sigma.

        Raises:
            ValueError: the images' keys or sigma differ, or some draws would count twice.
        """
        if not isinstance(other, Votes):
            return NotImplemented
        self._check_same(other)
        num_classes = max(self.counts.shape[1], other.counts.shape[1])
        return Votes(
            counts=_padded(self.counts, num_classes) + _padded(other.counts, num_classes),
            sigma=self.sigma,
            perturbation=self.perturbation,
            keys=self.keys,
            spans=_merged(self.spans + other.spans),
            # Each way of running once, in the order of the sum.
            executions=tuple(dict.fromkeys(self.executions + other.executions)),
            clean_label=self.clean_label if other.clean_label is None else other.clean_label,
            scores=None
            if self.scores is None or other.scores is None
            else self.scores + other.scores,
            changed_votes=self._changed_with(other),
        )

    def _changed_with(self, other: "Votes") -> ChangedVotes | None:
        """Returns what the audits of both say; float32's votes have none, and nothing changed."""
        if self.changed_votes is None and other.changed_votes is None:
            return None
        first, second = (
            votes.changed_votes or ChangedVotes.none_of(int(votes.counts.sum()))
            for votes in (self, other)
        )
        return first + second

    def _check_same(self, other: "Votes") -> None:
        is_same = self.perturbation == other.perturbation and self.sigma == other.sigma
        if is_same and np.array_equal(self.keys, other.keys):
            return
        at, got = (
            (f"sigma {self.sigma}", other.sigma)
            if self.sigma is not None
            else (self.perturbation, other.perturbation)
        )
        raise ValueError(f"expected votes of the same images at {at}, got others at {got}")


@dataclass(frozen=True, eq=False)
class Sweep(Mapping[Any, Votes]):
    """Votes at several sigmas, from the same standard-normal draws.

    `sweep[0.1]` is the Votes at sigma 0.1; votes of another perturbation stand under its name.
    """

    votes: tuple[Votes, ...]

    @property
    def sigmas(self) -> tuple[float, ...]:
        """Returns the standard deviations of Gaussian noise, in the order they were asked for."""
        return tuple(votes.sigma for votes in self.votes if votes.sigma is not None)

    @property
    def wobbliness(self) -> dict[Any, Float[np.ndarray, " N"]]:
        """Computes W at each sigma, `(N,)` nats each."""
        return {_key(votes): votes.wobbliness for votes in self.votes}

    @property
    def changed_votes(self) -> dict[Any, ChangedVotes | None]:
        """Returns what an audit says of the votes at each sigma; None where float32 has them."""
        return {_key(votes): votes.changed_votes for votes in self.votes}

    @property
    def precision(self) -> str | None:
        """Returns what is said of the precision; None where float32 was asked for.

        Each line once: it may differ among sigmas.
        """
        return precisions_of(self.executions)

    @property
    def executions(self) -> tuple[Execution, ...]:
        """Returns how the forward passes at all sigmas were run."""
        return tuple(execution for votes in self.votes for execution in votes.executions)

    def __getitem__(self, sigma: float | str) -> Votes:
        # Few sigmas: a search in their order, by number or by name.
        for votes in self.votes:
            if sigma in (votes.sigma, votes.perturbation):
                return votes
        raise KeyError(f"expected one of the measured sigmas {tuple(self)}, got {sigma}")

    def __iter__(self) -> Iterator[Any]:
        return map(_key, self.votes)

    def __len__(self) -> int:
        return len(self.votes)


def _key(votes: Votes) -> float | str:
    return votes.perturbation if votes.sigma is None else votes.sigma


def _merged(spans: tuple[DrawSpan, ...]) -> tuple[DrawSpan, ...]:
    """Returns the spans sorted, with neighbours joined."""
    # Joined, so that votes added in many small parts keep one span a seed.
    merged: list[DrawSpan] = []
    for span in sorted(spans):
        last = merged[-1] if merged and merged[-1].seed == span.seed else None
        if last:
            _check_apart(last, span)
        if last and span.first == last.stop:
            merged[-1] = DrawSpan(seed=span.seed, first=last.first, stop=span.stop)
        else:
            merged.append(span)
    return tuple(merged)


def _check_apart(before: DrawSpan, span: DrawSpan) -> None:
    # Sorted by seed and first draw, only neighbours can overlap.
    if span.first < before.stop:
        raise ValueError(
            f"expected draws that were not counted before, got draws {span.first} to "
            f"{min(span.stop, before.stop) - 1} "
            f"of seed {span.seed} twice; measure with another seed or first_draw"
        )


def _padded(counts: Int[np.ndarray, "N K"], num_classes: int) -> Int[np.ndarray, "N L"]:
    # Classes never predicted have no column: counts are padded with zeros.
    return np.pad(counts, ((0, 0), (0, num_classes - counts.shape[1])))
