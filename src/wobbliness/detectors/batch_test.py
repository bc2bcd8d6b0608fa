"""Test of a batch of inputs: is the classifier unusually smooth around it?

An active trigger, among others, has that effect.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from wobbliness.detectors.distinct_inputs import distinct_rows
from wobbliness.detectors.noise_level import (
    BatchTest,
    Level,
    choose_sigma,
    directional_pvalues,
    in_order,
    levene_pvalues,
    shown_level,
)
from wobbliness.detectors.overlay_copies import require_overlays_apart
from wobbliness.perturbations.base import Perturbation
from wobbliness.runtime.progress import Progress
from wobbliness.sampling.checked_images import checked_images
from wobbliness.sampling.measure import sweep
from wobbliness.statistics.two_sample import (
    LeveneTest,
    MannWhitneyTest,
    levene_test,
    mann_whitney_test,
)

SMOOTHER, WOBBLIER, NO_DIFFERENCE = "smoother", "wobblier", "no difference"
DEFAULT_SIGMAS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
# points of each batch: with fewer not even a fully smooth batch has a p-value worth a verdict
MIN_POINTS = 8
NUM_POWER_BATCHES = 500  # pairs of batches drawn to estimate a power
MIN_POWER = 0.9

BatchesOfW = Mapping[Any, ArrayLike]
"""W of the points of a batch, `(N,)` nats, at each sigma; of another perturbation by its name."""


@dataclass(frozen=True, kw_only=True)
class SigmaComparison:
    """Both batches at one sigma.

    Attributes:
        sigma: standard deviation of the noise, pixel units of [0, 1]; or the name of another
            perturbation.
        clean_mean: nats, mean W of the clean points compared with.
        suspect_mean: nats, mean W of the suspect points.
        smoother: is W of the suspect points lower?
        wobblier: is it higher? Its effect size is the share of pairs in which the clean W is the
            lower one.
        levene: the paper's test, which does not see the sign.
    """

    sigma: Level
    clean_mean: float
    suspect_mean: float
    smoother: MannWhitneyTest
    wobblier: MannWhitneyTest
    levene: LeveneTest


@dataclass(frozen=True, kw_only=True)
class BatchComparison:
    """Result of the test of a suspect batch against a clean one.

    Attributes:
        level: false-positive rate of either verdict, smoother and wobblier, on batches of clean
            points.
        sigma: at which the directional tests are read and the verdict is given; or the name of
            another perturbation.
        levene_sigma: at which the paper's test is read; it needs more noise, since its outlier
            removal deletes every W > 0 of a batch that is mostly zeros.
        power: probability that the directional test would find a fully smooth batch (W = 0) of this
            size at this level.
        num_clean: clean points compared with.
        num_for_sigma: clean points on which sigma was chosen; 0 where it was given.
        num_suspect: suspect points.
        at: the comparison at each sigma, ascending, then under other perturbations.
    """

    level: float
    sigma: Level
    levene_sigma: Level
    power: float
    num_clean: int
    num_for_sigma: int
    num_suspect: int
    at: tuple[SigmaComparison, ...]

    def __getitem__(self, sigma: Level) -> SigmaComparison:
        """Returns the comparison at one of the sigmas, or by the name of a perturbation."""
        for comparison in self.at:
            if comparison.sigma == sigma:
                return comparison
        raise KeyError(
            f"expected a sigma out of {', '.join(shown_level(row.sigma) for row in self.at)}, got "
            f"{sigma!r}"
        )

    @property
    def verdict(self) -> str:
        """Returns `smoother`, `wobblier` or `no difference`.

        By the directional tests at the chosen sigma.
        """
        here = self[self.sigma]
        if here.smoother.pvalue <= self.level:
            return SMOOTHER
        return WOBBLIER if here.wobblier.pvalue <= self.level else NO_DIFFERENCE

    @property
    def is_powerful(self) -> bool:
        """Checks whether a fully smooth batch would most likely have been found.

        Only then does finding none mean something.
        """
        return self.power >= MIN_POWER

    def explanation(self) -> str:
        """Returns the verdict in plain words, with what it does not say."""
        here = self[self.sigma]
        numbers = (
            f"mean W {here.suspect_mean:.3f} against {here.clean_mean:.3f} nats "
            f"{'under' if isinstance(self.sigma, str) else 'at sigma'} {shown_level(self.sigma)}"
        )
        if self.verdict == SMOOTHER:
            return (
                f"The suspect batch is smoother than the clean one: {numbers}, W is lower in "
                f"{here.smoother.effect_size:.0%} "
                f"of the pairs (p = {here.smoother.pvalue:.1g}). An active trigger does that. So "
                "do patterns crafted after "
                "training, and a batch of other, easier classes: compare batches of the same "
                "classes."
            )
        if self.verdict == WOBBLIER:
            return (
                f"The suspect batch wobbles more than the clean one: {numbers}, W is higher in "
                f"{here.wobblier.effect_size:.0%} of the pairs (p = {here.wobblier.pvalue:.1g}). "
                "Unknown patterns, inactive "
                "triggers and most universal perturbations do that; an active trigger does not."
            )
        means = (
            "an active trigger on most of its points is unlikely"
            if self.is_powerful
            else "this says little: take more points"
        )
        return (
            f"No difference was found: {numbers} (p = {here.smoother.pvalue:.1g}). With "
            f"{self.num_suspect} suspect and "
            f"{self.num_clean} clean points a fully smooth batch is found with probability "
            f"{self.power:.2f}, so {means}."
        )


def compare_batches(
    classifier: Any,
    clean: Any,
    suspect: Any,
    *,
    sigmas: Iterable[float | Perturbation] = DEFAULT_SIGMAS,
    draws: int = 250,
    level: float = 0.01,
    seed: int = 0,
    num_classes: int | None = None,
    progress: Progress | None = None,
) -> BatchComparison:
    """Tests whether the classifier is smoother around a suspect batch (section 3.2.4).

    Measures W of all inputs at all sigmas and compares them with clean inputs by `compare_w`.
    Copies of an input, of the same grey levels of 256, count once: the tests take inputs for
    independent points.

    Args:
        classifier: as for `measure`.
        clean: `(N, ...)` inputs known to be clean, in [0, 1].
        suspect: `(M, ...)` inputs in question, of the same classes as the clean ones.
        sigmas: standard deviations of the noise to choose from, pixel units of [0, 1], or other
            perturbations; a single one is taken as it is. Overlays to mix with must be neither
            among the clean inputs nor among the suspect ones.
        draws: noisy copies of each input; of a perturbation with a fixed number of draws at most
            those.
        level: false-positive rate of either verdict.
        seed: of the noise and of the choice of points.
        num_classes: K, as for `measure`.
        progress: called with (inputs done, inputs in all).

    Raises:
        ValueError: as for `measure` and `compare_w`; most inputs of a batch are copies, or of one
            value throughout; overlays are among the inputs.
    """
    grid = tuple(sigmas)
    _check_level(level)
    clean = without_copies(clean, "clean inputs", grid)
    suspect = without_copies(suspect, "suspect inputs", grid)
    _check_sizes(len(clean), len(suspect), len(grid))
    total = len(clean) + len(suspect)
    # Each batch is measured by itself; the keys make an image's noise the same in both.
    w = []
    for inputs, before in ((clean, 0), (suspect, len(clean))):
        report = None if progress is None else _shifted(progress, before, total)
        measured = sweep(
            classifier,
            inputs,
            grid,
            draws=draws,
            seed=seed,
            num_classes=num_classes,
            progress=report,
        )
        w.append(measured.wobbliness)
    return compare_w(w[0], w[1], level=level, seed=seed)


def compare_w(
    clean_w: BatchesOfW, suspect_w: BatchesOfW, *, level: float = 0.01, seed: int = 0
) -> BatchComparison:
    """Compares measured batches.

    With several sigmas half of the clean points, drawn by the seed, choose the one of each test
    (`choose_sigma`) and the other half is compared with, so that the choice does not raise the
    false-positive rate. The verdict is that of the directional tests; the paper's Levene test is
    reported for comparison only, since after its outlier removal it does not hold its level.

    Other perturbations stand beside the sigmas, by their names: the choice is one of all of them,
    so that the p-values need no correction for their number.

    Args:
        clean_w: W of the clean points at each sigma.
        suspect_w: W of the suspect points at the same sigmas.
        level: false-positive rate of either verdict, in (0, 1).
        seed: of the choice of points.

    Raises:
        ValueError: the sigmas differ, there is none, points are too few, or the level is out of
            range.
    """
    _check_level(level)
    if not clean_w or set(clean_w) != set(suspect_w):
        raise ValueError(
            f"expected W of both batches at the same sigmas, got {in_order(clean_w)} and "
            f"{in_order(suspect_w)}"
        )
    clean = {sigma: np.asarray(clean_w[sigma], np.float64) for sigma in in_order(clean_w)}
    suspect = {sigma: np.asarray(suspect_w[sigma], np.float64) for sigma in in_order(clean)}
    num_clean, num_suspect = len(next(iter(clean.values()))), len(next(iter(suspect.values())))
    _check_sizes(num_clean, num_suspect, len(clean))
    compared, for_choice = (
        _halves(num_clean, seed) if len(clean) > 1 else (np.arange(num_clean), np.arange(0))
    )
    # The points that chose sigma are not compared: the level stays exact.
    reference = {sigma: w[compared] for sigma, w in clean.items()}
    calibration = {sigma: w[for_choice] for sigma, w in clean.items()}
    # The choice simulates batches of the size that will be compared.
    choose = partial(_sigma_for, calibration, batch_size=min(len(compared), num_suspect), seed=seed)
    sigma = choose(directional_pvalues)
    return BatchComparison(
        level=level,
        sigma=sigma,
        levene_sigma=choose(levene_pvalues),
        power=_power(reference[sigma], num_suspect, level, seed),
        num_clean=len(compared),
        num_for_sigma=len(for_choice),
        num_suspect=num_suspect,
        at=tuple(_at(sigma, reference[sigma], suspect[sigma]) for sigma in clean),
    )


def _sigma_for(
    calibration: dict[Level, Float[np.ndarray, " C"]],
    test: BatchTest,
    *,
    batch_size: int,
    seed: int,
) -> Level:
    """Chooses sigma for a test on clean points; the only one is taken as it is."""
    if len(calibration) == 1:
        (sigma,) = calibration
        return sigma
    return choose_sigma(calibration, batch_size=batch_size, test=test, seed=seed).sigma


def without_copies(
    images: Any, what: str, perturbations: Iterable[float | Perturbation] = ()
) -> Any:
    """Returns the inputs that differ; a tensor stays one.

    Args:
        images: `(N, ...)` in [0, 1].
        what: the inputs are, for messages.
        perturbations: that they are measured under.

    Raises:
        ValueError: as for `distinct_rows` and `require_overlays_apart`.
    """
    array = checked_images(images, with_channels_first=False)
    require_overlays_apart(perturbations, array, what)
    rows = distinct_rows(array, what)
    if len(rows) == len(array):
        return images
    return images[rows] if hasattr(images, "detach") else array[rows]


def _shifted(progress: Progress, before: int, total: int) -> Progress:
    """Returns the progress of the second of two measurements as that of both."""
    return lambda done, _: progress(before + done, total)


def _at(
    sigma: Level, clean: Float[np.ndarray, " N"], suspect: Float[np.ndarray, " M"]
) -> SigmaComparison:
    return SigmaComparison(
        sigma=sigma,
        clean_mean=float(clean.mean()),
        suspect_mean=float(suspect.mean()),
        # Both directions of one test; the verdict reads `smoother` first.
        smoother=mann_whitney_test(clean, suspect),
        wobblier=mann_whitney_test(suspect, clean),
        levene=levene_test(clean, suspect),
    )


def _halves(num_points: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns random points to compare with, and the rest to choose sigma on."""
    # The half to compare with is the larger one of an odd number.
    order = np.random.default_rng(np.random.SeedSequence(seed)).permutation(num_points)
    return np.sort(order[: -(-num_points // 2)]), np.sort(order[-(-num_points // 2) :])


def _power(clean: Float[np.ndarray, " N"], num_suspect: int, level: float, seed: int) -> float:
    """Estimates the probability that the directional test tells a fully smooth batch.

    The share of clean batches, drawn with replacement, that it tells from such a batch.
    """
    # A fully smooth batch has W = 0 at every point: the strongest effect the test can meet.
    drawn = np.random.default_rng(np.random.SeedSequence(seed)).choice(
        clean, size=(NUM_POWER_BATCHES, len(clean))
    )
    return float(
        np.mean(directional_pvalues(drawn, np.zeros((NUM_POWER_BATCHES, num_suspect))) <= level)
    )


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"expected a level in (0, 1), got {level!r}")


def _check_sizes(num_clean: int, num_suspect: int, num_sigmas: int) -> None:
    needed = MIN_POINTS if num_sigmas == 1 else 2 * MIN_POINTS
    if num_clean < needed or num_suspect < MIN_POINTS:
        why = "" if num_sigmas == 1 else ", half of them to choose sigma on"
        raise ValueError(
            f"expected at least {needed} clean inputs{why}, and {MIN_POINTS} suspect ones, got "
            f"{num_clean} and {num_suspect}"
        )
