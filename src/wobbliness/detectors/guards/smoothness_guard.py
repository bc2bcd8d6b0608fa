"""SmoothnessGuard: a detector of suspiciously smooth inputs at a stated false-positive rate."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from wobbliness.classifiers.base import Classifier
from wobbliness.classifiers.open import open_classifier
from wobbliness.detectors.guards.detection_results import Judgement, QuickVerdicts
from wobbliness.detectors.guards.fit_warnings import CleanVotes, known_labels, mild_agreement
from wobbliness.detectors.guards.input_guard import InputGuard
from wobbliness.detectors.inputs.distinct_inputs import host_array, kept_rows, taken
from wobbliness.detectors.inputs.overlay_copies import require_overlays_apart
from wobbliness.perturbations.base import Perturbation, effect_of, image_keys, num_draws_of
from wobbliness.perturbations.noise.gaussian import sigma_of
from wobbliness.sampling.measure import measure, sweep
from wobbliness.sampling.plan import Precision, checked_precision, perturbation_of
from wobbliness.sampling.sequential_test import decide_as_measured
from wobbliness.sampling.votes import Sweep
from wobbliness.statistics.class_ranks import class_ranks
from wobbliness.statistics.conformal import (
    Reference,
    conformal_pvalues,
    num_flagged,
    score_limit,
    tie_breakers,
)

ATTRIBUTES_OF_FILE = ("model_", "preprocessing_")
"""Attributes of the classifier that it was fitted on, which a guard from a file keeps."""

DEFAULT_SIGMAS = (0.05, 0.1, 0.15, 0.2, 0.3)


class SmoothnessGuard(InputGuard):
    """Outlier detector for inputs around which a classifier is suspiciously smooth.

    As it is around an active trigger.

    Half of the clean inputs given to `fit` are the reference: an input's score is the largest of
    its ranks of W, one at each sigma, among reference inputs of the same label (see
    `wobbliness.statistics.conformal`). The other half calibrates: the split-conformal p-value is
    the share of its scores that are as low. The sigmas are combined before calibrating, which
    leaves one test: the false-positive rate is exact for any classifier and any number of sigmas,
    over the draw of clean inputs, as long as new clean inputs come from where those came from. For
    one given set of C calibration inputs the rate varies around the stated a by about sqrt(a (1 -
    a) / C).

    It says nothing where smoothness is usual: an input of a label whose clean inputs are all smooth
    is never suspicious (`smooth_pvalues_`), and a trigger whose points wobble like clean ones is
    not seen.

    `predict` stops drawing as soon as an input is decided (early stopping). Its verdict differs
    from that of all draws (`judge`, the sign of `decision_function`) with a probability of at most
    `error_rate` for each input, over the order of the draws, so its false-positive rate is at most
    `false_positive_rate + error_rate`. A perturbation with a fixed number of draws is measured in
    full, as `judge` does.

    Args:
        classifier: as for `wobbliness.measure`. Clones of the guard share it.
        sigmas: standard deviations of the noise, pixel units of [0, 1], or other perturbations;
            overlays to mix with must be clean images that are neither fitted nor judged.
        draws: noisy copies of each input at each sigma; of a perturbation with a fixed number of
            draws at most those.
        false_positive_rate: share of clean inputs to be called suspicious, in (0, 1).
        error_rate: in (0, 1), of stopping early.
        seed: of the noise, of the halves, and of the order among equal scores.
        num_classes: K, where the classifier gives labels only; needed for `predict` then.
        device: as for `wobbliness.measure`.
        workers: as for `wobbliness.measure`.
        precision: as for `wobbliness.measure`, of all noisy copies; clean predictions are float32.

    Attributes:
        image_shape_: shape of one input.
        n_features_in_: its first axis: features of flat inputs, channels of pictures.
        reference_: W and labels of the reference inputs.
        calibration_: `(C,)` ascending scores of the calibration inputs.
        offset_: the score below which an input is suspicious.
        smooth_pvalues_: by label, the p-value of an input with W = 0 at every sigma, ties halved.
        warnings_: a sentence for each thing that is odd about the clean inputs.
    """

    def __init__(
        self,
        classifier: Any,
        *,
        sigmas: Sequence[float | Perturbation] = DEFAULT_SIGMAS,
        draws: int = 250,
        false_positive_rate: float = 0.05,
        error_rate: float = 0.001,
        seed: int = 0,
        num_classes: int | None = None,
        device: str | None = None,
        workers: int | None = None,
        precision: Precision = "float32",
    ) -> None:
        self.classifier = classifier
        self.sigmas = sigmas
        self.draws = draws
        self.false_positive_rate = false_positive_rate
        self.error_rate = error_rate
        self.seed = seed
        self.num_classes = num_classes
        self.device = device
        self.workers = workers
        self.precision = precision

    def fit(self, X: Any, y: object = None) -> "SmoothnessGuard":
        """Learns how smooth clean inputs are.

        Args:
            X: `(N, C, H, W)` or `(N, D)` clean inputs in [0, 1], array or tensor.
            y: `(N,)` true classes, where they are known; for `warnings_` alone.

        Raises:
            ValueError: as for `measure`; a rate out of range; too few different inputs for the
                rate; most are copies of others, or of one value throughout; overlays are among
                them.
        """
        images = self._checked(X, reset=True)
        check_rates(self.false_positive_rate, self.error_rate, len(images))
        given = known_labels(y, len(images))
        rows = different_rows(images, self.false_positive_rate, self.error_rate)
        images = taken(images, rows)
        found = self._measure_inputs(images, "clean inputs", draws=True)
        # One half is the reference that ranks are taken among, the other calibrates.
        order = np.random.default_rng(np.random.SeedSequence(self.seed)).permutation(len(images))
        reference, rest = order[: len(images) // 2], order[len(images) // 2 :]
        # A guard that was loaded and is fitted again knows nothing of the file's classifier.
        for kept in ATTRIBUTES_OF_FILE:
            self.__dict__.pop(kept, None)
        self.image_shape_ = tuple(images.shape[1:])
        self.reference_ = Reference(wobbliness=found.w[:, reference], label=found.label[reference])
        self.calibration_ = np.sort(
            self.reference_.scores(found.w[:, rest], found.label[rest], found.ties[rest])
        )
        # The score below which the split-conformal p-value is at most the rate.
        self.offset_ = score_limit(self.calibration_, self.false_positive_rate)
        self.smooth_pvalues_ = self._smooth_pvalues(found.votes.votes[0].counts.shape[1])
        counts = [votes.counts for votes in found.votes.votes]
        self.warnings_ = CleanVotes(
            label=found.label[order],
            num_reference=len(reference),
            agreement=mild_agreement(self.sigmas, counts, found.label),
            num_classes=counts[0].shape[1],
            kept=np.empty((0, len(order))),  # around smooth inputs all do, around others not
            given=None if given is None else given[rows][order],
        ).warnings()
        return self

    def judge(self, X: Any) -> Judgement:
        """Computes W, labels, p-value, verdict and reasons of each input, from all draws."""
        found = self._measure_inputs(self._checked_as_fitted(X), "inputs", draws=True)
        score = self.reference_.scores(found.w, found.label, found.ties)
        known = self.reference_
        ranks = [
            class_ranks(w, found.label, clean, known.label)
            for w, clean in zip(found.w, known.wobbliness, strict=True)
        ]
        shares = np.stack([each.share_above for each in ranks])
        return Judgement(
            votes=found.votes,
            undisturbed_label=found.label,
            score=score,
            pvalue=conformal_pvalues(score, self.calibration_),
            is_suspicious=score < self.offset_,
            false_positive_rate=self.false_positive_rate,
            effects=tuple(effect_of(perturbation_of(value)) for value in self.sigmas),
            # Of equal shares the last one: the most noise, as sigmas usually ascend.
            spoke=len(shares) - 1 - shares[::-1].argmax(axis=0),
            percentile=100 * shares.min(axis=0),
            num_clean=ranks[0].num_clean,
        )

    def score_samples(self, X: Any) -> Float[np.ndarray, " N"]:
        """Computes the largest rank of W over the sigmas, from all draws.

        `(N,)` in [0, 1): higher is more normal.
        """
        return self.judge(X).score

    def decision_function(self, X: Any) -> Float[np.ndarray, " N"]:
        """Computes the score less `offset_`, `(N,)`: negative where suspicious."""
        return self.score_samples(X) - self.offset_

    def pvalues(self, X: Any) -> Float[np.ndarray, " N"]:
        """Computes split-conformal p-values, `(N,)`, from all draws.

        They are small where an input is suspiciously smooth.
        """
        return self.judge(X).pvalue

    def predict(self, X: Any) -> Int[np.ndarray, " N"]:
        """Returns -1 where suspiciously smooth, else 1, `(N,)`, with early stopping."""
        return np.where(self.judge_quickly(X).is_suspicious, -1, 1)

    def judge_quickly(self, X: Any) -> QuickVerdicts:
        """Computes verdicts alone, with early stopping.

        An input is suspicious only if its W is below a limit at every sigma, so it is decided at
        the first sigma where it is not, and there as soon as `decide_as_measured` says so. Large
        sigmas come first: most clean inputs are decided there; before them what has a fixed number
        of draws, which is measured in full.
        """
        images = self._checked_as_fitted(X)
        found = self._measure_inputs(images, "inputs", draws=False)
        most = self._most_draws()
        if found.classifier.num_classes is None:  # decisions need K
            return QuickVerdicts(
                is_suspicious=self.judge(X).is_suspicious,
                draws=np.full(len(images), most),
                most_draws=most,
            )
        limits = self.reference_.thresholds(self.offset_, found.label, found.ties)
        # Where a limit is not positive no W is below it; where it is infinite every W is.
        suspicious, draws = (
            np.asarray((limits > 0).all(axis=0)),
            np.zeros(len(images), dtype=np.int64),
        )
        # From the largest sigma down; only inputs below every limit so far are tested further.
        for row in self._rows_in_turn():
            left = np.flatnonzero(suspicious & np.isfinite(limits[row]))
            if left.size:
                suspicious[left], used = self._decide(
                    found.classifier, images[left], row, limits[row, left]
                )
                draws[left] += used
        return QuickVerdicts(is_suspicious=suspicious, draws=draws, most_draws=most)

    def _most_draws(self) -> int:
        """Returns the number of draws of an input without early stopping."""
        ends = [num_draws_of(perturbation_of(value)) for value in self.sigmas]
        return sum(self.draws if end is None else min(end, self.draws) for end in ends)

    def _rows_in_turn(self) -> list[int]:
        """Returns the rows of the sigmas in the order in which early stopping takes them."""
        made = list(map(perturbation_of, self.sigmas))
        # A fixed number of draws is a small one; other families than noise have no order.
        return sorted(
            range(len(made)),
            key=lambda row: (num_draws_of(made[row]) is None, -(sigma_of(made[row]) or 0.0)),
        )

    def _measure_inputs(self, images: Any, what: str, *, draws: bool) -> "_Measured":
        """Opens the classifier; measures clean predictions and, where asked for, votes."""
        classifier = open_classifier(
            self.classifier,
            num_classes=self.num_classes,
            as_tensor=hasattr(images, "detach"),
            device=self.device,
        )
        label = measure(classifier, images, 0.0, draws=1, workers=self.workers).label
        array = host_array(images)
        require_overlays_apart(self.sigmas, array, what)
        ties = tie_breakers(image_keys(array), self.seed)
        if not draws:
            return _Measured(classifier=classifier, label=label, ties=ties)
        settings = self._settings()
        votes = sweep(classifier, images, self.sigmas, draws=self.draws, **settings)
        return _Measured(classifier=classifier, label=label, ties=ties, votes=votes)

    def _settings(self) -> dict[str, Any]:
        """Returns the arguments that all measurements of noisy copies have in common."""
        precision: Precision = checked_precision(self.precision)
        return {"seed": self.seed, "workers": self.workers, "precision": precision}

    def _decide(
        self, classifier: Classifier, images: Any, row: int, limits: Float[np.ndarray, " N"]
    ) -> tuple[Bool[np.ndarray, " N"], Int[np.ndarray, " N"]]:
        """Decides whether W is below the limit at one sigma; returns that and the draws, `(N,)`."""
        settings = self._settings()
        if num_draws_of(perturbation_of(self.sigmas[row])) is not None:
            votes = measure(classifier, images, self.sigmas[row], self.draws, **settings)
            return votes.wobbliness < limits, np.full(len(images), votes.draws)
        found = decide_as_measured(
            classifier,
            images,
            self.sigmas[row],
            limits,
            # Bonferroni: a wrong decision at any sigma changes the verdict.
            error_rate=self.error_rate / len(self.sigmas),
            max_draws=self.draws,
            **settings,
        )
        return found.is_below, found.draws

    def _smooth_pvalues(self, num_classes: int) -> Float[np.ndarray, " K"]:
        labels = np.arange(num_classes)
        score = self.reference_.scores(
            # W = 0 at every sigma, and the tie-breaker in the middle.
            np.zeros((len(self.sigmas), num_classes)),
            labels,
            np.full(num_classes, 0.5),
        )
        return conformal_pvalues(score, self.calibration_)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Measured:
    """Measurements of inputs."""

    classifier: Classifier
    label: Int[np.ndarray, " N"]
    ties: Float[np.ndarray, " N"]
    votes: Sweep = field(default_factory=lambda: Sweep(()))

    @property
    def w(self) -> Float[np.ndarray, "S N"]:
        return np.stack([votes.wobbliness for votes in self.votes.votes])


def different_rows(
    images: Any, false_positive_rate: float, error_rate: float
) -> Int[np.ndarray, " D"]:
    """Returns the rows of the inputs without copies of each other.

    Two of the same grey levels, of 256, count as copies.

    The rate is exact where clean inputs are drawn one by one from where new ones come from. Copies
    are not: a picture that is in the reference and among those that calibrate is ranked among
    itself, and few different ones say little of new ones. Measured with 200 inputs at a stated 5 %:
    36 % false positives where all are equal, 24 % with 5 different ones, 9 % with 20.

    Raises:
        ValueError: fewer than half differ from all others, too few for the rate do, or more than
            half have one value throughout.
    """
    rows = kept_rows(images)
    if len(rows) < len(images):
        check_rates(false_positive_rate, error_rate, len(rows), what="different clean inputs")
    return rows


def check_rates(
    false_positive_rate: float, error_rate: float, num_images: int, what: str = "clean inputs"
) -> None:
    """Checks that rates lie in (0, 1) and that there are enough clean inputs for them.

    Raises ValueError where one does not, or so few inputs leave no p-value as small as the first
    rate.
    """
    for name, value in (
        ("a false-positive rate", false_positive_rate),
        ("an error rate", error_rate),
    ):
        if not 0 < value < 1:
            raise ValueError(f"expected {name} between 0 and 1, got {value}")
    num_calibration = num_images - num_images // 2
    if num_images < 2 or num_flagged(num_calibration, false_positive_rate) < 1:
        raise ValueError(
            f"expected at least {least_inputs(false_positive_rate)} {what} for a false-positive "
            f"rate of {false_positive_rate}, got {num_images} sample{'s' if num_images > 1 else ''}"
        )


def least_inputs(false_positive_rate: float) -> int:
    """Returns the number of clean inputs that a rate in (0, 1) needs, half of them to calibrate."""
    return max(2, 2 * int(np.ceil(1 / false_positive_rate - 1e-9)) - 3)
