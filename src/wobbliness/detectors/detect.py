"""Scores and p-values of any detector, calibrated on clean images that it was not fitted on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from wobbliness.detectors.base import ClassScores, Detector, FittedDetector, Judges
from wobbliness.detectors.inputs.distinct_inputs import distinct_rows
from wobbliness.runtime.terminal import well_formed
from wobbliness.sampling.checked_images import checked_images
from wobbliness.statistics.conformal import conformal_pvalues

# what a clean image, or a batch of them, is a sample of
CALIBRATED = (Judges.INPUTS, Judges.BATCHES)
MIN_CLEAN = 4  # images: two to fit on, two to calibrate on


@dataclass(frozen=True, kw_only=True, eq=False)
class Detection:
    """Result of a detector.

    Attributes:
        detector: its name.
        judges: what a score is about.
        score: `(S,)` higher where more suspicious, as many as `Judges` says.
        pvalue: `(S,)` in (0, 1], the share of clean scores that are as high; NaN throughout where
            no clean score was there to compare with, as of a model.
        class_scores: `(K,)` of a detector of models that tells the target class; else None.
        num_fit: clean images that it was fitted on.
        num_calibration: clean scores that the p-values are ranks among.
    """

    detector: str
    judges: Judges
    score: Float[np.ndarray, " S"]
    pvalue: Float[np.ndarray, " S"]
    class_scores: Float[np.ndarray, " K"] | None
    num_fit: int
    num_calibration: int

    def frame(self, names: Sequence[str]) -> pd.DataFrame:
        """Returns a table with a row for each score.

        Args:
            names: of what each score is about: of inputs, or one of the batch or the model.
        """
        if len(names) != len(self.score):
            raise ValueError(f"expected {len(self.score)} names, got {len(names)}")
        columns = {"score": self.score, "pvalue": self.pvalue}
        shown = [well_formed(name) for name in names]
        return pd.DataFrame({"input": range(len(self.score)), **columns, "name": shown})


def detect(
    detector: Detector, classifier: Any, images: Any, clean: Any, *, seed: int = 0
) -> Detection:
    """Fits a detector on clean images, and scores others.

    Half of the clean images, drawn by the seed, calibrate: a p-value is the share of their scores,
    and the score itself, that are as high (split-conformal, as for `conformal_pvalues`). So a clean
    input, drawn as these were, has a p-value of at most a with probability at most a, for any
    detector. Batches are calibrated by batches of the same size, without overlap. Networks and
    training sets have no clean ones to compare with: all clean images fit.

    Args:
        detector: one of this package or of one's own.
        classifier: as for `measure`, or opened.
        images: `(N, ...)` in question, in [0, 1]; for a detector of models, of no consequence.
        clean: `(M, ...)` known to be clean, in [0, 1]; copies of each other count once.
        seed: of the choice of images that calibrate.

    Raises:
        ValueError: as for `Detector.fit`; the clean images are too few or mostly copies; the scores
            are not as many as they should be, or not numbers.
    """
    to_fit, to_calibrate = _halves(clean, seed, splits=detector.judges in CALIBRATED)
    fitted = detector.fit(classifier, to_fit)
    score = _scores(detector, fitted, images)
    size = len(images) if detector.judges is Judges.BATCHES else max(1, len(to_calibrate))
    calibration = _calibration(detector, fitted, to_calibrate, size)
    return Detection(
        detector=detector.name,
        judges=detector.judges,
        score=score,
        pvalue=_pvalues(score, calibration),
        class_scores=fitted.class_scores if isinstance(fitted, ClassScores) else None,
        num_fit=len(to_fit),
        num_calibration=len(calibration),
    )


def _halves(clean: Any, seed: int, *, splits: bool) -> tuple[Any, Any]:
    """Returns clean images to fit on and to calibrate on, of those that differ from each other."""
    array = checked_images(clean, with_channels_first=False)
    clean = clean if hasattr(clean, "detach") else array
    rows = distinct_rows(array, "clean images")
    if len(rows) < MIN_CLEAN:
        raise ValueError(f"expected at least {MIN_CLEAN} clean images, got {len(rows)}")
    if not splits:
        return clean[rows], clean[:0]
    order = np.random.default_rng(np.random.SeedSequence(seed)).permutation(rows)
    half = len(order) // 2
    return clean[np.sort(order[half:])], clean[np.sort(order[:half])]


def _calibration(
    detector: Detector, fitted: FittedDetector, images: Any, size: int
) -> Float[np.ndarray, " C"]:
    """Returns the scores of clean images, in parts of a size without overlap, ascending."""
    firsts = range(0, len(images) - size + 1, size)
    scores = [_scores(detector, fitted, images[first : first + size]) for first in firsts]
    return np.sort(np.concatenate([*scores, np.empty(0)]))


def _pvalues(
    scores: Float[np.ndarray, " S"], calibration: Float[np.ndarray, " C"]
) -> Float[np.ndarray, " S"]:
    if not len(calibration):
        return np.full(len(scores), np.nan)
    # conformal_pvalues takes scores that are low where suspicious
    return conformal_pvalues(-scores, -calibration[::-1])


def _scores(detector: Detector, fitted: FittedDetector, images: Any) -> Float[np.ndarray, " S"]:
    """Returns the scores, as many as there should be."""
    scores = np.asarray(fitted.scores(images))
    per_image = detector.judges in (Judges.INPUTS, Judges.TRAINING_SETS)
    wanted = (len(images) if per_image else 1,)
    if scores.shape != wanted or scores.dtype.kind not in "fiu" or np.isnan(scores).any():
        found = "NaN" if scores.dtype.kind == "f" and np.isnan(scores).any() else scores.dtype
        raise ValueError(
            f"expected scores {wanted} of {detector.name}, which judges {detector.judges.value}, "
            f"as numbers, got {found} of shape {scores.shape}"
        )
    return scores.astype(np.float64)
