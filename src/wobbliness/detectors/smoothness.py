"""Smoothness of single inputs: the score of `SmoothnessGuard`, with all clean inputs to rank among.

The guard also calibrates, and gives verdicts at a stated false-positive rate.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Int

from wobbliness.classifiers import Classifier
from wobbliness.detectors.access import open_for
from wobbliness.detectors.base import Access, Judges, name_by_settings
from wobbliness.detectors.guards.smoothness_guard import DEFAULT_SIGMAS
from wobbliness.detectors.inputs.overlay_copies import require_overlays_apart
from wobbliness.perturbations.base import Perturbation, image_keys
from wobbliness.sampling.checked_images import checked_images
from wobbliness.sampling.measure import measure, sweep
from wobbliness.sampling.plan import sigmas_or_perturbations
from wobbliness.statistics.conformal import Reference, tie_breakers


@dataclass(frozen=True)
class Smoothness:
    """Rank of W of an input, low at every sigma, among clean inputs of the same label.

    Attributes:
        sigmas: standard deviations of the noise, pixel units of [0, 1], or other perturbations.
        draws: noisy copies of each input at each sigma.
        seed: of the noise, and of the order among equal scores.
    """

    sigmas: Sequence[float | Perturbation] = DEFAULT_SIGMAS
    draws: int = 250
    seed: int = 0

    access: ClassVar[Access] = Access.LABELS
    judges: ClassVar[Judges] = Judges.INPUTS

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigmas", sigmas_or_perturbations(self.sigmas))

    @property
    def name(self) -> str:
        """The name in records and tables."""
        return name_by_settings(self)

    def fit(self, classifier: Any, clean: Any) -> "FittedSmoothness":
        """Measures W of the clean inputs.

        Raises:
            ValueError: as for `measure`.
        """
        opened = open_for(self, classifier, clean)
        found = _measured(self, opened, clean, "clean inputs")
        reference = Reference(wobbliness=found.wobbliness, label=found.label)
        return FittedSmoothness(detector=self, classifier=opened, reference=reference)


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedSmoothness:
    """Smoothness around one classifier, among its clean inputs."""

    detector: Smoothness
    classifier: Classifier
    reference: Reference

    def scores(self, images: Any) -> Float[np.ndarray, " N"]:
        """Computes 1 less the largest rank of W over the sigmas, `(N,)` in (0, 1]."""
        found = _measured(self.detector, self.classifier, images, "inputs")
        keys = image_keys(checked_images(images, with_channels_first=False))
        ties = tie_breakers(keys, self.detector.seed)
        return np.asarray(1 - self.reference.scores(found.wobbliness, found.label, ties))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Measured:
    """W at each sigma, and the clean predictions."""

    wobbliness: Float[np.ndarray, "S N"]
    label: Int[np.ndarray, " N"]


def _measured(detector: Smoothness, classifier: Classifier, images: Any, what: str) -> _Measured:
    array = checked_images(images, with_channels_first=False)
    require_overlays_apart(detector.sigmas, array, what)
    votes = sweep(classifier, images, detector.sigmas, draws=detector.draws, seed=detector.seed)
    return _Measured(
        wobbliness=np.stack([at.wobbliness for at in votes.votes]),
        label=measure(classifier, images, 0.0, draws=1).label,
    )
