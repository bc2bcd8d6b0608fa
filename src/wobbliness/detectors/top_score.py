"""Top softmax score: a backdoor makes the network sure of itself. The baseline of other detectors.

Hendrycks and Gimpel, ICLR 2017, read from the other end: there a low score tells inputs that the
network does not know, here a high one tells those that it was trained to obey.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from wobbliness.classifiers import Classifier
from wobbliness.detectors.access import class_scores, open_for
from wobbliness.detectors.base import Access, Judges, name_by_settings

MAX_ROUNDING = 1e-3  # of probabilities that should add up to 1, of 16 bits at worst


@dataclass(frozen=True)
class TopScore:
    """Logarithm of the top softmax score of each input without noise.

    The logarithm puts inputs in the same order as the score itself, and is finer: float numbers
    hold many scores near 1 as 1.

    Attributes:
        are_probabilities: whether the classifier's scores are probabilities already. By default
            they are logits, as a torch network gives them. One probability is that of class 1.
    """

    are_probabilities: bool = False

    access: ClassVar[Access] = Access.SCORES
    judges: ClassVar[Judges] = Judges.INPUTS

    @property
    def name(self) -> str:
        """The name in records and tables."""
        return name_by_settings(self)

    def fit(self, classifier: Any, clean: Any) -> "FittedTopScore":
        """Opens the classifier; clean images teach nothing.

        Raises:
            ValueError: it gives labels alone.
        """
        opened = open_for(self, classifier, clean)
        return FittedTopScore(classifier=opened, are_probabilities=self.are_probabilities)


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedTopScore:
    """Top score of one classifier."""

    classifier: Classifier
    are_probabilities: bool

    def scores(self, images: Any) -> Float[np.ndarray, " N"]:
        """Computes log max_k p_k, `(N,)` at most 0.

        Raises:
            ValueError: scores that should be probabilities are none.
        """
        scores = class_scores(self.classifier, images, are_probabilities=self.are_probabilities)
        if self.are_probabilities:
            _check_probabilities(scores)
            return np.asarray(np.log(scores.max(axis=1)))
        # log softmax at the maximum is -log(1 + sum of exp(z_k - z_top) over the others)
        ordered = np.sort(scores, axis=1)
        others = np.exp(ordered[:, :-1] - ordered[:, -1:]).sum(axis=1)
        return np.asarray(-np.log1p(others))


def _check_probabilities(scores: Float[np.ndarray, "N K"]) -> None:
    sums = scores.sum(axis=1)
    if scores.min() < 0 or np.abs(sums - 1).max() > MAX_ROUNDING:
        raise ValueError(
            f"expected probabilities that add up to 1, got scores from {scores.min():g} to "
            f"{scores.max():g} with sums from {sums.min():g} to {sums.max():g}"
        )
