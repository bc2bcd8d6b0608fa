"""Result of the test of where the votes of a batch go, and its words."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from wobbliness.detectors.guards.vote_reading import ProfileVotes
from wobbliness.statistics.destinations import destination_test
from wobbliness.statistics.expected_votes import shares_of

ELSEWHERE, AS_USUAL = "elsewhere", "no difference"
NUM_PERMUTATIONS = 9999


@dataclass(frozen=True, kw_only=True)
class DestinationsUnder:
    """Votes of both batches under one perturbation.

    Attributes:
        perturbation: its name.
        deviance: nats, mean log-likelihood ratio of the votes of a suspect input.
        usual_deviance: nats, the same if clean and suspect inputs were alike.
        pvalue: of this perturbation by itself, not corrected for their number.
    """

    perturbation: str
    deviance: float
    usual_deviance: float
    pvalue: float


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Votes for one class around the inputs of one prediction, under all perturbations together.

    Attributes:
        predicted: the clean prediction.
        destination: the class that the votes are for; it may be the same.
        suspect_share: of the votes around suspect inputs.
        clean_share: of those around clean inputs.
    """

    predicted: int
    destination: int
    suspect_share: float
    clean_share: float


@dataclass(frozen=True, kw_only=True)
class DestinationComparison:
    """Result of the test of where the votes of a suspect batch go.

    Attributes:
        level: false-positive rate of the verdict on batches of clean inputs.
        pvalue: of all perturbations together, by permutation.
        num_permutations: that were drawn.
        num_clean: clean inputs compared with.
        num_overlays: clean inputs that are mixed with, and compared with nothing.
        num_suspect: suspect inputs.
        at: each perturbation.
        most_unusual: the votes that say most; None where no class has clean and suspect inputs.
        precision: where checked low precision was asked for, in words whether it was used, and why
            not; None where it was not asked for.
    """

    level: float
    pvalue: float
    num_permutations: int
    num_clean: int
    num_overlays: int
    num_suspect: int
    at: tuple[DestinationsUnder, ...]
    most_unusual: Destination | None
    precision: str | None = None

    @property
    def verdict(self) -> str:
        """Returns `elsewhere` or `no difference`."""
        return ELSEWHERE if self.pvalue <= self.level else AS_USUAL

    def explanation(self) -> str:
        """Returns the verdict in plain words, with what it does not say."""
        numbers = f"(p = {self.pvalue:.1g}, {self.num_suspect} suspect and {self.num_clean} clean)"
        if self.verdict == AS_USUAL or self.most_unusual is None:
            return (
                "The votes around the suspect inputs go where those around clean inputs of the "
                f"same prediction go {numbers}."
            )
        most = self.most_unusual
        return (
            "The votes around the suspect inputs go elsewhere than those around clean inputs of "
            f"the same prediction {numbers}: most of all, around those predicted as class "
            f"{most.predicted} {most.suspect_share:.0%} are for class {most.destination}, where "
            f"it is {most.clean_share:.0%} around clean ones. Triggers do that, whether they make "
            "W fall or not; so do inputs of another kind than the clean ones."
        )


def compare_votes(
    clean: ProfileVotes,
    suspect: ProfileVotes,
    *,
    names: Sequence[str],
    num_overlays: int = 0,
    level: float = 0.01,
    seed: int = 0,
    num_permutations: int = NUM_PERMUTATIONS,
) -> DestinationComparison:
    """Compares the votes of measured batches, as `compare_destinations` does.

    Args:
        clean: votes of clean inputs.
        suspect: votes of suspect ones, under the same perturbations.
        names: of the perturbations.
        num_overlays: clean inputs that are mixed with.
        level: false-positive rate of the verdict.
        seed: of the permutations.
        num_permutations: more of them give smaller p-values.
    """
    num_classes = max(clean.counts.shape[2], suspect.counts.shape[2])
    both = [votes.widened(num_classes) for votes in (clean, suspect)]
    counts = np.concatenate([votes.counts for votes in both], axis=1)
    label = np.concatenate([clean.label, suspect.label])
    is_suspect = np.arange(len(label)) >= len(clean)
    found = destination_test(
        counts, label, is_suspect, num_permutations=num_permutations, seed=seed
    )
    return DestinationComparison(
        level=level,
        pvalue=found.pvalue,
        num_permutations=num_permutations,
        num_clean=len(clean),
        num_overlays=num_overlays,
        num_suspect=len(suspect),
        at=tuple(
            DestinationsUnder(perturbation=name, deviance=own, usual_deviance=usual, pvalue=pvalue)
            for name, own, usual, pvalue in zip(
                names,
                found.statistic.tolist(),
                found.usual.tolist(),
                found.pvalues.tolist(),
                strict=True,
            )
        ),
        most_unusual=_most_unusual(*both),
    )


def _most_unusual(clean: ProfileVotes, suspect: ProfileVotes) -> Destination | None:
    """Finds the votes that add most to the deviance: number times log of their excess."""
    most, found = 0.0, None
    for own in np.intersect1d(clean.label, suspect.label).tolist():
        shares = [shares_of(_total(votes, own)) for votes in (suspect, clean)]
        number = int((suspect.label == own).sum())
        # Half a vote more, so that a class without clean votes has a finite logarithm.
        floor = 0.5 / _total(clean, own).sum()
        excess = number * shares[0] * np.log((shares[0] + floor) / (shares[1] + floor))
        if excess.max() > most:
            most, place = float(excess.max()), int(excess.argmax())
            found = Destination(
                predicted=own,
                destination=place,
                suspect_share=float(shares[0][place]),
                clean_share=float(shares[1][place]),
            )
    return found


def _total(votes: ProfileVotes, own: int) -> Int[np.ndarray, " K"]:
    return np.asarray(votes.counts[:, votes.label == own].sum(axis=(0, 1)))
