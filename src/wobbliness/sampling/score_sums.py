"""Sums of a classifier's probabilities over the copies of each image, for readouts."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped
from scipy import special

# Values are rounded to multiples of it, so that sums do not depend on their order.
UNIT = 2.0**-32
# Of the sum of an image's probabilities, at most this far from 1.
SUM_TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreSums:
    """Sums over the copies of each image, exact to 2^-33 for each copy.

    Every term is a multiple of 2^-32, so sums are exact up to 2 million draws, do not depend on
    their order, and add.

    Attributes:
        probabilities: `(N, K)` sums of the class probabilities.
        squares: `(N, K)` sums of their squares.
        entropies: `(N,)` sums of the entropy of each copy's probabilities, nats.
        clean: `(N, K)` probabilities of the images as they are.
    """

    probabilities: Float[np.ndarray, "... K"]
    squares: Float[np.ndarray, "... K"]
    entropies: Float[np.ndarray, "..."]
    clean: Float[np.ndarray, "N K"] | None = None

    @classmethod
    def of_copies(cls, probabilities: Float[np.ndarray, "B K"]) -> "ScoreSums":
        """Sums over the copies of one image."""
        return cls(
            probabilities=_rounded(probabilities).sum(axis=0),
            squares=_rounded(probabilities**2).sum(axis=0),
            entropies=np.asarray(_rounded(special.entr(probabilities).sum(axis=1)).sum()),
        )

    @classmethod
    def stacked(
        cls, rows: Sequence[Sequence["ScoreSums"]], clean: Float[np.ndarray, "N K"]
    ) -> "ScoreSums":
        """Stacks the sums of images and perturbations, `(N, S, ...)`."""
        parts = {
            field.name: np.array([[getattr(sums, field.name) for sums in row] for row in rows])
            for field in fields(cls)
            if field.name != "clean"
        }
        return cls(**parts, clean=clean)

    def of_row(self, row: int) -> "ScoreSums":
        """Returns the sums under one perturbation."""
        return ScoreSums(
            probabilities=self.probabilities[:, row],
            squares=self.squares[:, row],
            entropies=self.entropies[:, row],
            clean=self.clean,
        )

    def __add__(self, other: "ScoreSums") -> "ScoreSums":
        """Adds sums over further copies of the same images."""
        return ScoreSums(
            probabilities=self.probabilities + other.probabilities,
            squares=self.squares + other.squares,
            entropies=self.entropies + other.entropies,
            clean=self.clean,
        )


def joined_sums(parts: Sequence[ScoreSums | None]) -> ScoreSums | None:
    """Joins sums of several sets of images, one after another; None where one has none."""
    there = [part for part in parts if part is not None]
    if len(there) < len(parts):
        return None
    joined: dict[str, Any] = {
        field.name: np.concatenate([getattr(part, field.name) for part in there])
        for field in fields(ScoreSums)
    }
    return ScoreSums(**joined)


def probabilities_of(
    answers: Shaped[np.ndarray, "B ..."], scores: str | None
) -> Float[np.ndarray, "B K"]:
    """Returns class probabilities from what a classifier answers.

    Args:
        answers: scores of at least two classes.
        scores: `logits`, turned by the softmax, or `probabilities`, as they are.

    Raises:
        ValueError: the answers are labels or one score, or no probabilities where such are said.
    """
    array = np.asarray(answers).reshape(len(answers), -1).astype(np.float64)
    if array.shape[1] < 2:
        raise ValueError(f"expected {scores} of at least 2 classes, got one value for each image")
    # Never guessed from the values: the user says what they are.
    if scores == "logits":
        return np.asarray(special.softmax(array, axis=1))
    sums = array.sum(axis=1)
    # NaN fails the comparison
    if not (array.min() >= 0 and np.abs(sums - 1).max() <= SUM_TOLERANCE):
        raise ValueError(
            "expected probabilities, at least 0 and with a sum of 1 for each image, got values "
            f"from {array.min():g} with sums from {sums.min():g} to {sums.max():g}; say logits "
            "where they are"
        )
    return np.asarray(array / sums[:, None])


def _rounded(values: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    return np.asarray(np.rint(values / UNIT) * UNIT)
