"""Votes of single inputs under many perturbations: the score of `ProfileGuard`.

All clean inputs but those to mix with are its reference. The guard also calibrates, and gives
verdicts at a stated false-positive rate.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from wobbliness.classifiers import Classifier
from wobbliness.detectors.access import open_for
from wobbliness.detectors.base import Access, Judges, name_by_settings
from wobbliness.detectors.guards.profile_measuring import ALL, measure_profile, measured_profile
from wobbliness.detectors.guards.profile_stage import ProfileStage
from wobbliness.detectors.guards.profiles import ProfilePart
from wobbliness.detectors.inputs.clean_parts import CleanParts

# A fifth of them to mix with, and a reference that is no handful.
MIN_CLEAN = 20


@dataclass(frozen=True)
class Profile:
    """Distance of the votes under many perturbations from those of clean inputs.

    Attributes:
        draws: copies of each input under each perturbation.
        seed: of the draws, of the choice of images to mix with, and of the order among equal
            scores.
    """

    draws: int = 50
    seed: int = 0

    access: ClassVar[Access] = Access.LABELS
    judges: ClassVar[Judges] = Judges.INPUTS

    @property
    def name(self) -> str:
        """The name in records and tables."""
        return name_by_settings(self)

    def fit(self, classifier: Any, clean: Any) -> "FittedProfile":
        """Learns how clean inputs vote, of which a fifth, at most 100, are mixed with others.

        Raises:
            ValueError: as for `measure`; fewer than 20 clean inputs.
        """
        opened = open_for(self, classifier, clean)
        if len(clean) < MIN_CLEAN:
            raise ValueError(f"expected at least {MIN_CLEAN} clean inputs, got {len(clean)}")
        parts = CleanParts.of(len(clean), mixes=True, seed=self.seed)
        profile = measured_profile(opened, clean[parts.overlays], self.draws, seed=self.seed)
        found = measure_profile(opened, clean[parts.measured], profile, ALL, seed=self.seed)
        # Whoever fits a detector calibrates it by other inputs: of the stage the scores are used.
        stage = ProfileStage.fitted(found.votes, found.votes, found.ties)
        return FittedProfile(detector=self, classifier=opened, parts=profile, stage=stage)


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedProfile:
    """A detector that knows how clean inputs vote; their scores are low."""

    detector: Profile
    classifier: Classifier
    parts: tuple[ProfilePart, ...]
    stage: ProfileStage

    def scores(self, images: Any) -> Float[np.ndarray, " N"]:
        """Computes how unlike those of clean inputs the votes are, `(N,)`.

        Inputs that were fitted have scores, too, lower than those of others of their kind.
        """
        seed = self.detector.seed
        found = measure_profile(self.classifier, images, self.parts, ALL, seed=seed)
        return -self.stage.scores(self.stage.placed(found.votes), found.ties)
