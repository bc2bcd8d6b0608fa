"""What is read from the votes of an input: how often they stay, how they differ, where they go.

Four numbers for each part of a profile, from labels alone; two more where the classifier gives
scores. A part is one perturbation, or one for each group of overlays.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from wobbliness.sampling.readouts import retained_confidence
from wobbliness.sampling.votes import Votes
from wobbliness.statistics.entropy import plug_in_entropy
from wobbliness.statistics.expected_votes import deviance

# Added before a logarithm: half a vote, and nats below which differences are chance.
HALF_VOTE, SMALL_ENTROPY, SMALL_DEVIANCE = 0.5, 0.05, 0.02
# Votes for other classes that are read as if they went where such votes usually go: few say little.
USUAL_VOTES = 2
# Names of the numbers, in their order; the last ones with scores only.
READINGS = ("agreement", "wobbliness", "deviance", "destinations", "entropy", "confidence")
NUM_LABEL_READINGS = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class ProfileVotes:
    """Votes of inputs under each perturbation of a profile.

    Attributes:
        counts: `(S, N, K)`.
        parts: `(S,)` the part of each perturbation, ascending from 0.
        label: `(N,)` clean predictions, below K.
        entropies: `(S, N)` sums over the copies of the entropy of the class probabilities, in nats;
            None without scores.
        confidences: `(S, N)` sums of the probability of the clean prediction; None without scores.
    """

    counts: Int[np.ndarray, "S N K"]
    parts: Int[np.ndarray, " S"]
    label: Int[np.ndarray, " N"]
    entropies: Float[np.ndarray, "S N"] | None = None
    confidences: Float[np.ndarray, "S N"] | None = None

    @classmethod
    def of(cls, found: Sequence[Votes]) -> "ProfileVotes":
        """Returns votes with clean predictions; each perturbation is a part of its own."""
        return profile_votes(found, [each.perturbation for each in found], range(len(found)))

    def __len__(self) -> int:
        return len(self.label)

    @property
    def draws(self) -> Int[np.ndarray, " S"]:
        """The number of votes under each perturbation."""
        return np.asarray(self.counts[:, 0].sum(axis=1))

    def __add__(self, other: "ProfileVotes") -> "ProfileVotes":
        """Adds votes of more draws of the same inputs."""
        num_classes = max(self.counts.shape[2], other.counts.shape[2])
        one, two = self.widened(num_classes), other.widened(num_classes)
        return ProfileVotes(
            counts=one.counts + two.counts,
            parts=self.parts,
            label=self.label,
            entropies=_sum(one.entropies, two.entropies),
            confidences=_sum(one.confidences, two.confidences),
        )

    def __getitem__(self, rows: Int[np.ndarray, " M"]) -> "ProfileVotes":
        """Returns those of some inputs."""
        return ProfileVotes(
            counts=self.counts[:, rows],
            parts=self.parts,
            label=self.label[rows],
            entropies=None if self.entropies is None else self.entropies[:, rows],
            confidences=None if self.confidences is None else self.confidences[:, rows],
        )

    def widened(self, num_classes: int) -> "ProfileVotes":
        """Returns the same for more classes, which got no vote."""
        more = max(num_classes - self.counts.shape[2], 0)
        counts = np.pad(self.counts, ((0, 0), (0, 0), (0, more)))
        return ProfileVotes(
            counts=counts,
            parts=self.parts,
            label=self.label,
            entropies=self.entropies,
            confidences=self.confidences,
        )

    def by_part(self, values: Any) -> Any:
        """Returns the sums of values `(S, ...)` over the perturbations of each part, `(P, ...)`."""
        starts = np.flatnonzero(np.diff(self.parts, prepend=-1))
        return np.add.reduceat(values, starts, axis=0)

    def mean_by_part(self, values: Float[np.ndarray, "S ..."]) -> Float[np.ndarray, "P ..."]:
        """Returns the means over all draws of each part, `(P, ...)`."""
        draws = self.draws.reshape(-1, *[1] * (values.ndim - 1))
        return np.asarray(self.by_part(values * draws) / self.by_part(draws))


def profile_votes(
    found: Sequence[Votes], names: Sequence[str], parts: Sequence[int]
) -> ProfileVotes:
    """Returns votes as a profile has them.

    Args:
        found: with clean predictions, under some perturbations of a profile.
        names: of all of them; those that were not measured got no votes.
        parts: the part of each.
    """
    label = found[0].clean_label
    assert label is not None  # measured with `keep_clean`
    num_classes = 1 + max(int(label.max()), *(each.counts.shape[1] - 1 for each in found))
    by_name = {each.perturbation: each for each in found}
    counts = np.zeros((len(names), len(label), num_classes), np.int64)
    sums = np.zeros((2, len(names), len(label)))
    for row, name in enumerate(names):
        if (votes := by_name.get(name)) is None:
            continue
        counts[row, :, : votes.counts.shape[1]] = votes.counts
        if votes.scores is not None:
            sums[0, row] = votes.scores.entropies
            sums[1, row] = retained_confidence(votes) * votes.draws
    has_scores = found[0].scores is not None
    return ProfileVotes(
        counts=counts,
        parts=np.asarray(parts),
        label=label,
        entropies=sums[0] if has_scores else None,
        confidences=sums[1] if has_scores else None,
    )


def read_votes(
    votes: ProfileVotes, expected: Float[np.ndarray, "S N K"]
) -> Float[np.ndarray, "R P N"]:
    """Returns the readings of votes, in the order of `READINGS`.

    With c the votes of an input under all perturbations of a part, y its clean prediction, n draws
    and q the expected shares: ln((c_y + 1/2) / (n - c_y + 1/2)), its agreement; ln(W + 0.05);
    ln(D + 0.02) with D the `deviance` from q; and where other votes go, the mean of
    -ln q_k / (1 - q_y) over the votes for other classes k and two usual ones, whose mean is the
    entropy of q without y. q is that of the vote's own perturbation, D the mean over the draws.

    Args:
        votes: of inputs.
        expected: shares of the votes of clean inputs of the same prediction.
    """
    counts = votes.by_part(votes.counts)
    own = np.take_along_axis(counts, votes.label[None, :, None], axis=2)[..., 0]
    draws = votes.by_part(votes.draws)[:, None]
    others = draws - own
    divergence = votes.mean_by_part(deviance(votes.counts, expected))
    readings = [
        np.log((own + HALF_VOTE) / (others + HALF_VOTE)),
        np.log(plug_in_entropy(counts) + SMALL_ENTROPY),
        np.log(divergence + SMALL_DEVIANCE),
        _destination_surprise(votes, expected, others),
    ]
    if votes.entropies is not None and votes.confidences is not None:
        readings += [
            np.log(votes.by_part(votes.entropies) / draws + SMALL_ENTROPY),
            _logit(votes.by_part(votes.confidences) / draws),
        ]
    return np.stack(readings)


def _destination_surprise(
    votes: ProfileVotes, expected: Float[np.ndarray, "S N K"], others: Int[np.ndarray, "P N"]
) -> Float[np.ndarray, "P N"]:
    """Returns the mean surprise of the other classes that votes go to, in nats."""
    usual = usual_destinations(expected, votes.label)
    is_own = usual == 0
    surprise = -np.log(np.where(is_own, 1, usual))
    elsewhere = np.where(is_own, 0, votes.counts)
    entropy = votes.mean_by_part((usual * surprise).sum(axis=2))
    total = votes.by_part((elsewhere * surprise).sum(axis=2)) + USUAL_VOTES * entropy
    return np.asarray(total / (others + USUAL_VOTES))


def usual_destinations(
    expected: Float[np.ndarray, "S N K"], label: Int[np.ndarray, " N"]
) -> Float[np.ndarray, "S N K"]:
    """Returns the expected shares of the votes for other classes, which add up to 1.

    Args:
        expected: shares of all votes.
        label: the class of each input, whose share becomes 0.
    """
    is_own = np.eye(expected.shape[2], dtype=bool)[label]
    others = np.where(is_own, 0, expected)
    return np.asarray(others / others.sum(axis=2, keepdims=True))


def _sum(
    one: Float[np.ndarray, "S N"] | None, two: Float[np.ndarray, "S N"] | None
) -> Float[np.ndarray, "S N"] | None:
    return None if one is None or two is None else one + two


def _logit(shares: Float[np.ndarray, "S N"]) -> Float[np.ndarray, "S N"]:
    # Probabilities are float32 sums: 0 and 1 are as near as 1e-6.
    inside = np.clip(shares, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(inside / (1 - inside)))
