"""Neural Cleanse: a class that few pixels lead to is the target of a backdoor.

Wang et al., IEEE S&P 2019. The search for the pixels is `craft_candidates`.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from wobbliness.detectors.access import class_scores, open_for, scoring_network
from wobbliness.detectors.base import Access, Judges, name_by_settings
from wobbliness.detectors.reverse_engineering.candidates import Candidates
from wobbliness.runtime.progress import ignore_progress
from wobbliness.sampling.checked_images import checked_images


@dataclass(frozen=True)
class NeuralCleanse:
    """Anomaly index of the smallest reverse-engineered trigger of a network.

    Attributes:
        restarts: random starts of each class.
        max_steps: most steps of each start.
        seed: of starts and mini-batches.
    """

    restarts: int = 2
    max_steps: int = 120
    seed: int = 0

    access: ClassVar[Access] = Access.GRADIENTS
    judges: ClassVar[Judges] = Judges.MODELS

    @property
    def name(self) -> str:
        """The name in records and tables."""
        return name_by_settings(self)

    def fit(self, classifier: Any, clean: Any) -> "FittedNeuralCleanse":
        """Reverse-engineers a trigger of each class on all the clean images.

        Raises:
            NoGradients: the network has none that a search could follow. A ValueError, too.
            ValueError: the classifier is no torch network, or the images are no pictures.
        """
        from wobbliness.detectors.reverse_engineering.trigger_search import craft_candidates

        opened = open_for(self, classifier, clean)
        pictures = checked_images(clean).astype(np.float32, copy=False)
        found = craft_candidates(
            scoring_network(opened, pictures[:2]),
            pictures,
            num_classes=class_scores(opened, pictures[:2]).shape[1],
            restarts=self.restarts,
            max_steps=self.max_steps,
            seed=self.seed,
            progress=ignore_progress,
        )
        return FittedNeuralCleanse(candidates=found)


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedNeuralCleanse:
    """Reverse-engineered triggers of one network.

    Attributes:
        candidates: of each class.
    """

    candidates: Candidates

    def scores(self, images: Any) -> Float[np.ndarray, " 1"]:  # noqa: ARG002
        """Returns the highest of `class_scores`, `(1,)`: the network's, whatever the images."""
        return np.array([self.class_scores.max()])

    @property
    def class_scores(self) -> Float[np.ndarray, " K"]:
        """Anomaly indices of the classes, `(K,)`; negative for masks above the median.

        0, as at the median, where the search found no trigger, or too few for an index.
        """
        smallest = self.candidates.smallest
        norms = np.array([np.nan if found is None else found.mask_l1 for found in smallest])
        # An unusually large mask is an outlier, too, and not suspicious.
        signs = np.sign(np.nanmedian(norms) - norms) if np.isfinite(norms).any() else norms
        return np.asarray(np.nan_to_num(signs * self.candidates.anomaly_index, nan=0.0))
