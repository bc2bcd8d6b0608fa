"""The batch test as a detector: is W of a whole batch lower than that of clean images?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from wobbliness.classifiers import Classifier
from wobbliness.detectors.access import open_for
from wobbliness.detectors.base import Access, Judges, name_by_settings
from wobbliness.detectors.batches.batch_results import BatchComparison
from wobbliness.detectors.batches.batch_test import (
    DEFAULT_SIGMAS,
    BatchesOfW,
    compare_w,
    without_copies,
)
from wobbliness.perturbations.base import Perturbation
from wobbliness.sampling.measure import sweep
from wobbliness.sampling.plan import sigmas_or_perturbations

SMALLEST_PVALUE = 1e-300  # its logarithm is finite


@dataclass(frozen=True)
class SmootherBatch:
    """Directional test of `compare_batches`, once fitted for any number of batches.

    Attributes:
        sigmas: standard deviations of the noise to choose from, pixel units of [0, 1], or other
            perturbations; a single one is taken as it is.
        draws: noisy copies of each image.
        seed: of the noise and of the choice of points.
    """

    sigmas: Sequence[float | Perturbation] = DEFAULT_SIGMAS
    draws: int = 250
    seed: int = 0

    access: ClassVar[Access] = Access.LABELS
    judges: ClassVar[Judges] = Judges.BATCHES

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigmas", sigmas_or_perturbations(self.sigmas))

    @property
    def name(self) -> str:
        """The name in records and tables."""
        return name_by_settings(self)

    def fit(self, classifier: Any, clean: Any) -> "FittedSmootherBatch":
        """Measures W of the clean images, copies of each other left out.

        Raises:
            ValueError: as for `compare_batches`.
        """
        opened = open_for(self, classifier, clean)
        clean_w = _wobbliness(self, opened, without_copies(clean, "clean inputs", self.sigmas))
        return FittedSmootherBatch(detector=self, classifier=opened, clean_w=clean_w)


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedSmootherBatch:
    """Test of batches against the clean images of one classifier."""

    detector: SmootherBatch
    classifier: Classifier
    clean_w: BatchesOfW

    def scores(self, images: Any) -> Float[np.ndarray, " 1"]:
        """Computes -log10 of the p-value of "W is lower", `(1,)` for the whole batch.

        Raises:
            ValueError: as for `compare_batches`.
        """
        here = self.comparison(images)
        pvalue = here[here.sigma].smoother.pvalue
        return np.array([-np.log10(max(pvalue, SMALLEST_PVALUE))])

    def comparison(self, images: Any) -> BatchComparison:
        """Compares the batch with the clean images, as `compare_batches` does."""
        suspect = without_copies(images, "suspect inputs", self.detector.sigmas)
        suspect_w = _wobbliness(self.detector, self.classifier, suspect)
        return compare_w(self.clean_w, suspect_w, seed=self.detector.seed)


def _wobbliness(detector: SmootherBatch, classifier: Classifier, images: Any) -> BatchesOfW:
    """Measures W at each sigma; the same noise for the same image in any batch."""
    votes = sweep(classifier, images, detector.sigmas, draws=detector.draws, seed=detector.seed)
    return votes.wobbliness
