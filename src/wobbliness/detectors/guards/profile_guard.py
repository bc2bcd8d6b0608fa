"""ProfileGuard: a detector of inputs whose votes under many perturbations are unlike clean ones."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from wobbliness.classifiers.open import open_classifier
from wobbliness.detectors.guards.detection_results import ProfileJudgement, QuickVerdicts
from wobbliness.detectors.guards.fit_warnings import (
    CleanVotes,
    kept_shares,
    known_labels,
    mild_agreement,
)
from wobbliness.detectors.guards.input_guard import InputGuard
from wobbliness.detectors.guards.profile_measuring import (
    ALL,
    EARLY,
    LATE,
    MeasuredProfile,
    When,
    measure_profile,
    measured_profile,
)
from wobbliness.detectors.guards.profile_stage import ProfileStage
from wobbliness.detectors.guards.profiles import ProfilePart, parts_of
from wobbliness.detectors.guards.reasons import unusual_readings
from wobbliness.detectors.guards.smoothness_guard import ATTRIBUTES_OF_FILE
from wobbliness.detectors.guards.vote_reading import ProfileVotes
from wobbliness.detectors.inputs.clean_parts import CleanParts, UnsuitedInputs, check_enough
from wobbliness.detectors.inputs.distinct_inputs import host_array, kept_rows, taken
from wobbliness.detectors.inputs.overlay_copies import overlays_of, require_overlays_apart
from wobbliness.perturbations.base import Perturbation, effect_of
from wobbliness.sampling.plan import (
    Precision,
    Scores,
    checked_precision,
    perturbation_of,
    sigmas_or_perturbations,
)
from wobbliness.sampling.votes import Sweep
from wobbliness.statistics.class_ranks import ClassRanks, class_ranks
from wobbliness.statistics.conformal import conformal_pvalues, score_limit

# An input is let go early where it is as usual as that.
USUAL_PVALUE = 0.25
MIN_CLASSES = 2


class ProfileGuard(InputGuard):
    """Outlier detector for inputs whose votes are unlike those of clean inputs.

    An input is perturbed in several ways (a profile), and each time the classifier votes. Four
    numbers are read from the votes under each perturbation
    (`wobbliness.detectors.guards.vote_reading`): how often they agree with the clean prediction,
    how much they differ, how far they are from the mean votes of clean inputs with that prediction,
    and whether other votes go where those of clean inputs go. The score is how far these numbers
    are from the nearest clean inputs, together with the evidence whose sign theory gives
    (`wobbliness.statistics.novelty`). Votes of mixtures are compared with clean ones of the same
    overlays: those of a class that is neither the input's nor
    the overlay's tell most of a trigger that sends each class elsewhere.

    The clean inputs given to `fit` are divided into three parts: overlays to mix with, the
    reference, and those that calibrate. All perturbations are combined before calibrating, which
    leaves one test: the split-conformal p-value is exact for any classifier, over the draw of clean
    inputs, as long as new clean inputs come from where those came from.

    `predict` lets inputs go early whose votes after a fifth of the draws are as usual as those of
    three quarters of the clean inputs; all others get all draws. It flags a part of what `judge`
    flags, so that its false-positive rate is at most the stated one.

    Args:
        classifier: as for `wobbliness.measure`. Clones of the guard share it.
        perturbations: or sigmas; by default those of
            `wobbliness.detectors.guards.profiles.default_profile`, mixing with a part of the clean
            inputs. Overlays that are given must be neither fitted nor judged.
        draws: copies of each input under each perturbation, of one with a fixed number of draws at
            most those; 50 are 250 passes by default, 13 are 59.
        scores: what the classifier's scores are, `logits` or `probabilities`, to read mean entropy
            and retained confidence, too; by default labels alone.
        false_positive_rate: share of clean inputs to be called suspicious, in (0, 1).
        seed: of the draws, of the parts, and of the order among equal scores.
        num_classes: K, where the classifier gives labels only.
        device: as for `wobbliness.measure`.
        workers: as for `wobbliness.measure`.
        precision: as for `wobbliness.measure`.

    Attributes:
        image_shape_: shape of one input.
        n_features_in_: its first axis: features of flat inputs, channels of pictures.
        perturbations_: of the profile.
        parts_: the same with their draws, and with groups of overlays.
        stages_: what clean votes look like, after the early draws and after all.
        offset_: the score below which an input is suspicious.
        calibration_label_: predictions of the calibration inputs, in the order of the last stage's
            scores; None in a guard from a file that does not hold them.
        warnings_: a sentence for each thing that is odd about the clean inputs.
    """

    calibration_label_: Int[np.ndarray, " C"] | None

    def __init__(
        self,
        classifier: Any,
        *,
        perturbations: Sequence[float | Perturbation] | None = None,
        draws: int = 50,
        scores: Scores | None = None,
        false_positive_rate: float = 0.05,
        seed: int = 0,
        num_classes: int | None = None,
        device: str | None = None,
        workers: int | None = None,
        precision: Precision = "float32",
    ) -> None:
        self.classifier = classifier
        self.perturbations = perturbations
        self.draws = draws
        self.scores = scores
        self.false_positive_rate = false_positive_rate
        self.seed = seed
        self.num_classes = num_classes
        self.device = device
        self.workers = workers
        self.precision = precision

    def fit(self, X: Any, y: object = None) -> "ProfileGuard":
        """Learns how clean inputs vote.

        Args:
            X: `(N, C, H, W)` or `(N, D)` clean inputs in [0, 1], array or tensor.
            y: `(N,)` true classes, where they are known; for `warnings_` alone.

        Raises:
            ValueError: as for `measure`; a rate out of range; too few different inputs for three
                parts; one predicted class only; most inputs are copies of others; overlays are
                among them; scores of a classifier that gives labels.
        """
        images = self._checked(X, reset=True)
        self._check_enough(images)
        given, rows = known_labels(y, len(images)), kept_rows(images)
        images = taken(images, rows)
        self._check_enough(images, "different clean inputs")
        parts = CleanParts.of(len(images), mixes=self.perturbations is None, seed=self.seed)
        # A guard that was loaded and is fitted again knows nothing of the file's classifier.
        for kept in ATTRIBUTES_OF_FILE:
            self.__dict__.pop(kept, None)
        self.image_shape_ = tuple(images.shape[1:])
        self.parts_ = self._profile(images[parts.overlays])
        self.perturbations_ = tuple(part.whole for part in self.parts_)
        votes, ties = self._learn(images[parts.measured], len(parts.reference))
        counts = votes.by_part(votes.counts)
        mixes = [bool(overlays_of(made)) for made in self.perturbations_]
        self.warnings_ = CleanVotes(
            label=votes.label,
            num_reference=len(parts.reference),
            agreement=mild_agreement(self.perturbations_, list(counts), votes.label),
            num_classes=counts.shape[2],
            kept=kept_shares(counts[mixes], votes.label, ties),
            given=None if given is None else given[rows][parts.measured],
        ).warnings()
        # The score below which the split-conformal p-value is at most the rate.
        self.offset_ = score_limit(self.stages_[-1].calibration, self.false_positive_rate)
        return self

    def _learn(
        self, images: Any, num_reference: int
    ) -> tuple[ProfileVotes, Float[np.ndarray, " N"]]:
        """Learns what clean votes look like after the early draws, and after all.

        Returns:
            All votes, and the tie-breakers of the inputs.
        """
        found = self._measured(images, "clean inputs", EARLY)
        _check_classes(found.votes.label)
        votes = [found.votes]
        if self.num_stages > 1:
            votes.append(found.votes + self._measured(images, "clean inputs", LATE).votes)
        reference, calibration = np.split(np.arange(len(images)), [num_reference])
        ties = found.ties[calibration]
        self.stages_ = tuple(
            ProfileStage.fitted(each[reference], each[calibration], ties) for each in votes
        )
        last, stage = votes[-1][calibration], self.stages_[-1]
        self.calibration_label_ = last.label[np.argsort(stage.scores(stage.placed(last), ties))]
        return votes[-1], found.ties

    def judge(self, X: Any) -> ProfileJudgement:
        """Computes votes, labels, p-value, verdict and reasons of each input, from all draws."""
        found = self._measured(self._checked_as_fitted(X), "inputs", ALL)
        stage, votes = self.stages_[-1], found.votes
        placed = stage.placed(votes)
        score = stage.scores(placed, found.ties)
        ranks = self._ranks(score, votes.label)
        return ProfileJudgement(
            votes=Sweep(found.by_part),
            undisturbed_label=votes.label,
            score=score,
            pvalue=conformal_pvalues(score, stage.calibration),
            is_suspicious=score < self.offset_,
            false_positive_rate=self.false_positive_rate,
            effects=tuple(map(effect_of, self.perturbations_)),
            spoke=unusual_readings(placed, len(self.perturbations_)).argmax(axis=1),
            percentile=ranks.percentile,
            num_clean=ranks.num_clean,
            placed=placed,
            expected=votes.mean_by_part(stage.expected_of(votes)),
        )

    def _ranks(self, score: Float[np.ndarray, " N"], label: Int[np.ndarray, " N"]) -> ClassRanks:
        """Returns the places of scores among those of calibration inputs by predicted class."""
        clean, clean_label = self.stages_[-1].calibration, self.calibration_label_
        if clean_label is None:  # of a file from before it was kept
            clean, clean_label = np.empty(0), np.empty(0, np.int64)
        return class_ranks(score, label, clean, clean_label)

    def score_samples(self, X: Any) -> Float[np.ndarray, " N"]:
        """Computes scores from all draws, `(N,)`: higher is more normal."""
        return self.judge(X).score

    def decision_function(self, X: Any) -> Float[np.ndarray, " N"]:
        """Computes the score less `offset_`, `(N,)`: negative where suspicious."""
        return self.score_samples(X) - self.offset_

    def pvalues(self, X: Any) -> Float[np.ndarray, " N"]:
        """Computes split-conformal p-values, `(N,)`, from all draws; small where suspicious."""
        return self.judge(X).pvalue

    def predict(self, X: Any) -> Int[np.ndarray, " N"]:
        """Returns -1 where suspicious, else 1, `(N,)`, with early stopping."""
        return np.where(self.judge_quickly(X).is_suspicious, -1, 1)

    def judge_quickly(self, X: Any) -> QuickVerdicts:
        """Computes verdicts alone, with early stopping."""
        images = self._checked_as_fitted(X)
        found = self._measured(images, "inputs", EARLY)
        stage = self.stages_[0]
        score = stage.scores(stage.placed(found.votes), found.ties)
        left = np.flatnonzero(conformal_pvalues(score, stage.calibration) < USUAL_PVALUE)
        suspicious = np.zeros(len(images), dtype=bool)
        draws = np.full(len(images), self._num_passes(EARLY))
        if left.size and self.num_stages > 1:
            more = self._measured(images[left], "inputs", LATE)
            stage = self.stages_[-1]
            score[left] = stage.scores(
                stage.placed(found.votes[left] + more.votes), found.ties[left]
            )
            draws[left] += self._num_passes(LATE)
        suspicious[left] = score[left] < self.offset_
        return QuickVerdicts(
            is_suspicious=suspicious, draws=draws, most_draws=self._num_passes(ALL)
        )

    @property
    def num_stages(self) -> int:
        """The number of times that votes are read: one where no draws are left after the early."""
        return 2 if self._num_passes(LATE) else 1

    @property
    def num_passes(self) -> int:
        """The number of copies of an input that are classified without early stopping."""
        return self._num_passes(ALL)

    def _num_passes(self, when: When) -> int:
        """Returns the number of copies of an input for some of the draws."""
        return sum(len(when.of(part, level)) for part in self.parts_ for level in part.levels)

    def _profile(self, overlays: Any) -> tuple[ProfilePart, ...]:
        if self.perturbations is not None:
            made = map(perturbation_of, sigmas_or_perturbations(self.perturbations))
            return parts_of(made, self.draws)
        return measured_profile(
            self._opened(overlays), overlays, self.draws, seed=self.seed, workers=self.workers
        )

    def _check_enough(self, images: Any, what: str = "clean inputs") -> None:
        rate, mixes = self.false_positive_rate, self.perturbations is None
        check_enough(len(images), rate, mixes=mixes, what=what)

    def _opened(self, images: Any) -> Any:
        return open_classifier(
            self.classifier,
            num_classes=self.num_classes,
            as_tensor=hasattr(images, "detach"),
            device=self.device,
        )

    def _measured(self, images: Any, what: str, when: When) -> MeasuredProfile:
        """Opens the classifier, and measures the votes of some draws."""
        require_overlays_apart(self.perturbations_, host_array(images), what)
        return measure_profile(
            self._opened(images),
            images,
            self.parts_,
            when,
            seed=self.seed,
            workers=self.workers,
            scores=self.scores,
            precision=checked_precision(self.precision),
        )


def _check_classes(label: Int[np.ndarray, " N"]) -> None:
    if len(np.unique(label)) < MIN_CLASSES:
        raise UnsuitedInputs(
            f"expected clean inputs of at least {MIN_CLASSES} predicted classes, got class "
            f"{label[0]} alone",
            len(label),
        )
