"""Results of a guard for each of its inputs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from wobbliness.detectors.guards.reasons import (
    smoothness_reason,
    spoken,
    unusual_readings,
    votes_reason,
)
from wobbliness.detectors.inputs.noise_level import shown_level
from wobbliness.runtime.terminal import well_formed
from wobbliness.sampling.votes import Sweep


@dataclass(frozen=True, kw_only=True, eq=False)
class Judgement:
    """Detection result of each input, from all its draws.

    Attributes:
        votes: the votes at each sigma.
        undisturbed_label: `(N,)` the clean prediction, without noise.
        score: `(N,)` in [0, 1); low where the input is smooth for its label at every sigma.
        pvalue: `(N,)` in (0, 1]; split-conformal.
        is_suspicious: `(N,)` the p-value is at most the false-positive rate.
        false_positive_rate: share of clean inputs that are called suspicious.
        effects: of each perturbation on an input, in plain words.
        spoke: `(N,)` the perturbation that spoke most: here the one under which W is lower than
            that of most clean inputs.
        percentile: `(N,)` percent of the clean inputs of the same prediction that are less unusual,
            100 where all are; NaN where there are none. Here reference inputs, whose W is larger at
            every sigma than the input's.
        num_clean: `(N,)` number of those clean inputs.
    """

    votes: Sweep
    undisturbed_label: Int[np.ndarray, " N"]
    score: Float[np.ndarray, " N"]
    pvalue: Float[np.ndarray, " N"]
    is_suspicious: Bool[np.ndarray, " N"]
    false_positive_rate: float
    effects: tuple[str, ...]
    spoke: Int[np.ndarray, " N"]
    percentile: Float[np.ndarray, " N"]
    num_clean: Int[np.ndarray, " N"]

    def __len__(self) -> int:
        return len(self.score)

    @property
    def wobbliness(self) -> Float[np.ndarray, "N S"]:
        """Returns W at each sigma, `(N, S)` nats."""
        return np.stack([votes.wobbliness for votes in self.votes.votes], axis=1)

    @property
    def smoothed_label(self) -> Int[np.ndarray, "N S"]:
        """Returns the class predicted most often at each sigma, `(N, S)`."""
        return np.stack([votes.label for votes in self.votes.votes], axis=1)

    @property
    def agrees(self) -> Bool[np.ndarray, "N S"]:
        """Checks whether the smoothed label is the clean prediction, `(N, S)`."""
        return np.asarray(self.smoothed_label == self.undisturbed_label[:, None])

    @property
    def reasons(self) -> tuple[str, ...]:
        """Returns a sentence for each suspicious input, and an empty one for the others.

        It says which perturbation spoke most, and how.
        """
        return tuple(
            self.reasons_of(row)[0] if self.is_suspicious[row] else "" for row in range(len(self))
        )

    def reasons_of(self, row: int) -> tuple[str, ...]:
        """Returns a sentence for each perturbation that spoke about an input, the first one most.

        Args:
            row: of the input, suspicious or not.
        """
        spoke = self.spoke[row]
        reason = smoothness_reason(
            float(self.wobbliness[row, spoke]),
            int(self.undisturbed_label[row]),
            self.effects[spoke],
            percentile=float(self.percentile[row]),
            num_clean=int(self.num_clean[row]),
        )
        return (reason,)

    def frame(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """Returns a table with a row for each input.

        W, smoothed label and agreement have a column for each sigma, or other perturbation. `spoke`
        is the name of the perturbation that spoke most, empty where the input is not suspicious, as
        `reason` is.

        Args:
            names: of the inputs, for a column `name` at the end, such as `ImageSet.names`.
        """
        frame = pd.DataFrame(
            {
                "input": range(len(self)),
                "is_suspicious": self.is_suspicious,
                "pvalue": self.pvalue,
                "score": self.score,
                "undisturbed_label": self.undisturbed_label,
            }
        )
        for name in ("wobbliness", "smoothed_label", "agrees"):
            # One column for each quantity and sigma, such as wobbliness_0.1.
            # or of another perturbation its name, such as wobbliness_scale-3-5
            for column, sigma in enumerate(self.votes):
                frame[f"{name}_{shown_level(sigma)}"] = getattr(self, name)[:, column]
        frame = frame.assign(reason=self.reasons, spoke=self.spoken_names)
        return _with_names(frame.assign(percentile=self.percentile), names)

    @property
    def spoken_names(self) -> tuple[str, ...]:
        """Returns the perturbation that spoke most of each suspicious input, else an empty name."""
        names = [votes.perturbation for votes in self.votes.votes]
        return tuple(
            names[spoke] if flagged else ""
            for spoke, flagged in zip(self.spoke, self.is_suspicious, strict=True)
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class ProfileJudgement(Judgement):
    """Detection result of each input under a profile of perturbations, from all its draws.

    Attributes:
        votes: the votes under each perturbation.
        score: `(N,)` low where votes are unlike those of clean inputs.
        placed: `(N, R S)` readings of the votes (`vote_reading.READINGS`), those of one kind beside
            each other, in standard deviations from clean inputs of the same prediction.
        expected: `(S, N, K)` shares of the votes of such clean inputs.
        spoke: `(N,)` the perturbation whose readings are farthest from those of clean inputs.
        percentile: as of a `Judgement`, among calibration inputs by their scores.
    """

    placed: Float[np.ndarray, "N F"]
    expected: Float[np.ndarray, "S N K"]

    def reasons_of(self, row: int) -> tuple[str, ...]:
        """Returns sentences as `Judgement.reasons_of` does, of up to three perturbations."""
        label = int(self.undisturbed_label[row])
        return tuple(
            votes_reason(
                self.votes.votes[spoke], row, label, self.expected[spoke, row], self.effects[spoke]
            )
            for spoke in spoken(unusual_readings(self.placed[[row]], len(self.votes))[0])
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class QuickVerdicts:
    """Detection result of each input with early stopping.

    Attributes:
        is_suspicious: `(N,)` the verdict.
        draws: `(N,)` noisy copies that were classified, at all sigmas together.
        most_draws: noisy copies of each input without early stopping.
    """

    is_suspicious: Bool[np.ndarray, " N"]
    draws: Int[np.ndarray, " N"]
    most_draws: int

    def __len__(self) -> int:
        return len(self.draws)

    def frame(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """Returns a table with a row for each input.

        Args:
            names: of the inputs, for a column `name` at the end, such as `ImageSet.names`.
        """
        frame = pd.DataFrame(
            {"input": range(len(self)), "is_suspicious": self.is_suspicious, "draws": self.draws}
        )
        return _with_names(frame, names)


def _with_names(frame: pd.DataFrame, names: Sequence[str] | None) -> pd.DataFrame:
    if names is None:
        return frame
    if len(names) != len(frame):
        raise ValueError(f"expected {len(frame)} names, one for each input, got {len(names)}")
    return frame.assign(name=[well_formed(name) for name in names])
