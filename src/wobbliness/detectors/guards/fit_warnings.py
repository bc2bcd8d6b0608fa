"""Warnings of a guard about the clean inputs that it was fitted on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from wobbliness.perturbations.base import Perturbation
from wobbliness.perturbations.noise.gaussian import sigma_of
from wobbliness.sampling.plan import perturbation_of
from wobbliness.statistics.dip import has_several_modes
from wobbliness.statistics.plausibility import implausible_answers

# Clean inputs of a predicted class to compare others with; with fewer, what all classes lend each
# other weighs more than they do.
ADVISED_INPUTS = 10
MAX_NAMED = 5  # classes in a sentence
# Noise that is mild, and the share of copies under it that are to keep their class.
MILD_SIGMA, MIN_AGREEMENT = 0.1, 0.3


@dataclass(frozen=True, kw_only=True, eq=False)
class CleanVotes:
    """Votes of the clean inputs of a guard, as far as warnings need them.

    Attributes:
        label: `(N,)` clean predictions, first those of the reference.
        num_reference: of them that others are compared with.
        agreement: share of the copies under the least noise, of at most `MILD_SIGMA`, that keep
            the class of the input; None where there is no such noise.
        num_classes: K.
        kept: `(P, N)` shares of the copies of each input that keep its class, without ties, under
            each perturbation that mixes it with others.
        given: `(N,)` true classes; None where they are unknown.
    """

    label: Int[np.ndarray, " N"]
    num_reference: int
    agreement: float | None
    num_classes: int
    kept: Float[np.ndarray, "P N"]
    given: Int[np.ndarray, " N"] | None = None

    def warnings(self) -> tuple[str, ...]:
        """Returns a sentence for each thing that is odd about the clean inputs."""
        return (
            *implausible_answers(self.label, self.given, self.num_classes),
            *self._of_agreement(),
            *self._of_modes(),
            *self._of_few(),
        )

    def _of_agreement(self) -> list[str]:
        if self.agreement is None or self.agreement >= MIN_AGREEMENT:
            return []
        return [
            f"{self.agreement:.0%} of the copies of clean inputs keep their class under mild "
            "noise, where most do as a rule: are the inputs darker, or of less contrast, than "
            "those that the model was trained on?"
        ]

    def _of_modes(self) -> list[str]:
        if not any(map(has_several_modes, self.kept)):
            return []
        return [
            "how often clean inputs keep their class when they are mixed with others has more than "
            "one mode (dip test at 1 %): some may be of another kind than the rest, or carry a "
            "trigger"
        ]

    def _of_few(self) -> list[str]:
        seen = np.unique(self.label)
        numbers = np.bincount(self.label[: self.num_reference], minlength=1 + int(seen.max()))
        few = seen[numbers[seen] < ADVISED_INPUTS]
        if not len(few):
            return []
        fewest = few[np.argsort(numbers[few], kind="stable")]
        named = ", ".join(f"class {own}: {numbers[own]}" for own in fewest[:MAX_NAMED])
        more = f" and {len(few) - MAX_NAMED} more" if len(few) > MAX_NAMED else ""
        return [
            f"few clean inputs to compare with are predicted as {named}{more}; {ADVISED_INPUTS} of "
            "each class are advised"
        ]


def kept_shares(
    counts: Int[np.ndarray, "P N K"], label: Int[np.ndarray, " N"], ties: Float[np.ndarray, " N"]
) -> Float[np.ndarray, "P N"]:
    """Returns the share of the votes that are for the clean prediction, ties broken at random.

    (c + u) / (n + 1) with c of n votes, u the tie-breaker in [0, 1).

    Args:
        counts: votes under each perturbation.
        label: clean predictions.
        ties: of the inputs.
    """
    own = np.take_along_axis(counts, label[None, :, None], axis=2)[..., 0]
    return np.asarray((own + ties) / (counts.sum(axis=2) + 1))


def mild_agreement(
    perturbations: Sequence[float | Perturbation],
    counts: Sequence[Int[np.ndarray, "N _"]],
    label: Int[np.ndarray, " N"],
) -> float | None:
    """Returns the mean share of the votes for the clean prediction under the least noise.

    Args:
        perturbations: or sigmas.
        counts: votes under each of them.
        label: clean predictions.
    """
    sigmas = [sigma_of(perturbation_of(each)) for each in perturbations]
    mild = [(s, row) for row, s in enumerate(sigmas) if s is not None and 0 < s <= MILD_SIGMA]
    if not mild:
        return None
    votes = counts[min(mild)[1]]
    # A classifier of labels may never repeat a clean prediction that is beyond all votes.
    is_own = np.arange(votes.shape[1]) == label[:, None]
    return float(((votes * is_own).sum(axis=1) / votes.sum(axis=1)).mean())


def known_labels(given: object, number: int) -> Int[np.ndarray, " N"] | None:
    """Returns true classes where they are such: whole numbers from 0, one for each input."""
    if given is None:
        return None
    labels = np.asarray(given)
    is_class = labels.shape == (number,) and np.issubdtype(labels.dtype, np.integer)
    return labels.astype(np.int64) if is_class and labels.min() >= 0 else None
