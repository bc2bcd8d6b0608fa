"""Flipped labels of a training set."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from wobbliness.perturbations.base import Stream
from wobbliness.perturbations.levels import checked_level, shown_level


@dataclass(frozen=True)
class LabelFlip:
    """Each label of a training set is replaced with a probability by that of another class.

    Rosenfeld, Winston, Ravikumar and Kolter (ICML 2020, *Certified Robustness to Label-Flipping
    Attacks via Randomized Smoothing*). The other classes are equally likely; of two classes the
    label is flipped. Neither an input nor a network is perturbed: `measure_trainings`
    (`wobbliness.sampling.trainings`, in Python alone) counts the votes of the classifiers that are
    trained on the copies.

    >>> LabelFlip(0.1).name
    'label-flip-0.1'

    Attributes:
        share: probability that a label is replaced, from 0 to 1.

    Raises:
        ValueError: share is out of range.
    """

    share: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "share", checked_level(self.share, "a share", at_most=1.0))

    @property
    def name(self) -> str:
        """The name in records and tables."""
        return f"label-flip-{shown_level(self.share)}"

    def training_labels(
        self, stream: Stream, labels: Int[np.ndarray, " m"], draws: int, num_classes: int
    ) -> Int[np.ndarray, "B m"]:
        """Returns copies of the labels; one random word of each label decides.

        Args:
            stream: of the training set, at the first of the draws.
            labels: `(m,)` classes, 0 to num_classes - 1.
            draws: number of copies.
            num_classes: at least 2.

        Returns:
            `(draws, m)` classes.
        """
        words = stream.words("label-flip", len(labels), draws)
        limit = round(self.share * 2**32)  # words below it replace
        # rank of the new class among the others, each of (almost) equal weight
        # In 64 bits: a word times the number of classes does not fit into 32.
        ranks = words.astype(np.int64) * (num_classes - 1) // max(1, limit)
        # Ranks skip the class itself: those from its own on are moved up by one.
        others = ranks + (ranks >= labels)
        # Compared as 64-bit integers: of share 1 the limit is 2^32.
        return np.where(words < np.uint64(limit), others, labels)
