"""Test of a batch of inputs: is the classifier unusually smooth around it?

An active trigger, among others, has that effect.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from wobbliness.classifiers.execution import precisions_of
from wobbliness.detectors.batches.batch_results import BatchComparison, BoxMixTest, SigmaComparison
from wobbliness.detectors.batches.destination_results import DestinationComparison, compare_votes
from wobbliness.detectors.batches.mixed_images import MixedImages, mix_with_some
from wobbliness.detectors.guards.vote_reading import ProfileVotes
from wobbliness.detectors.inputs.distinct_inputs import distinct_rows
from wobbliness.detectors.inputs.noise_level import (
    BatchTest,
    Level,
    choose_sigma,
    directional_pvalues,
    in_order,
    levene_pvalues,
)
from wobbliness.detectors.inputs.overlay_copies import require_overlays_apart
from wobbliness.perturbations.base import Perturbation
from wobbliness.runtime.progress import Progress, progress_of_parts
from wobbliness.sampling.checked_images import checked_images
from wobbliness.sampling.measure import sweep
from wobbliness.sampling.plan import Precision, checked_precision
from wobbliness.sampling.votes import Sweep
from wobbliness.statistics.two_sample import levene_test, mann_whitney_test

DEFAULT_SIGMAS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
# points of each batch: with fewer not even a fully smooth batch has a p-value worth a verdict
MIN_POINTS = 8
NUM_POWER_BATCHES = 500  # pairs of batches drawn to estimate a power

BatchesOfW = Mapping[Any, ArrayLike]
"""W of the points of a batch, `(N,)` nats, at each sigma; of another perturbation by its name."""

Job = tuple[Any, tuple[float | Perturbation, ...]]
"""Inputs, and what they are measured under."""


@dataclass(frozen=True, kw_only=True, eq=False)
class BoxMixW:
    """W of the points of both batches under box mix.

    Attributes:
        perturbation: its name.
        clean: `(N,)` nats, of clean points that are not mixed in.
        suspect: `(M,)` nats.
        num_overlays: clean images that are.
    """

    perturbation: str
    clean: Float[np.ndarray, " N"]
    suspect: Float[np.ndarray, " M"]
    num_overlays: int


def compare_batches(
    classifier: Any,
    clean: Any,
    suspect: Any,
    *,
    sigmas: Iterable[float | Perturbation] | None = None,
    draws: int = 250,
    level: float = 0.01,
    seed: int = 0,
    num_classes: int | None = None,
    precision: Precision = "float32",
    progress: Progress | None = None,
    destinations: bool = False,
) -> BatchComparison:
    """Tests whether the classifier is smoother around a suspect batch (section 3.2.4).

    Measures W of all inputs and compares them with clean inputs by `compare_w`. Copies of an input,
    of the same grey levels of 256, count once: the tests take inputs for independent points.

    By default there are two tests: at the one of `DEFAULT_SIGMAS` that clean inputs choose, and,
    for pictures, under `BoxMix`, which shows triggers that noise does not. A fifth of the clean
    inputs, at most a hundred, are mixed with. They are among those that choose sigma, so that they
    are compared under neither; the p-values are corrected for two tests.

    Args:
        classifier: as for `measure`.
        clean: `(N, ...)` inputs known to be clean, in [0, 1].
        suspect: `(M, ...)` inputs in question, of the same classes as the clean ones.
        sigmas: standard deviations of the noise to choose from, pixel units of [0, 1], or other
            perturbations, for a single test; a single one is taken as it is. Overlays to mix with
            must be neither among the clean inputs nor among the suspect ones.
        draws: noisy copies of each input; of a perturbation with a fixed number of draws at most
            those.
        level: false-positive rate of either verdict.
        seed: of the noise and of the choice of points.
        num_classes: K, as for `measure`.
        precision: as for `measure`.
        progress: called with (inputs done, inputs in all).
        destinations: also test where the same votes go (`compare_votes`), under all perturbations
            together, clean inputs that are mixed with left out; all p-values are then corrected for
            this test, too.

    Raises:
        ValueError: as for `measure` and `compare_w`; most inputs of a batch are copies, or of one
            value throughout; overlays are among the inputs.
    """
    grid = DEFAULT_SIGMAS if sigmas is None else tuple(sigmas)
    _check_level(level)
    clean = without_copies(clean, "clean inputs", grid)
    suspect = without_copies(suspect, "suspect inputs", grid)
    _check_sizes(len(clean), len(suspect), len(grid))
    # Each batch is measured by itself; the keys make an image's noise the same in both.
    jobs: list[Job] = [(clean, grid), (suspect, grid)]
    mixed = None
    if sigmas is None:
        mixed = mix_with_some(clean, suspect, _halves(len(clean), seed)[1], seed)
    if mixed is not None:
        jobs += [(clean[~mixed.is_overlay], (mixed.box_mix,)), (suspect, (mixed.box_mix,))]
    settings: dict[str, Any] = {"draws": draws, "seed": seed, "num_classes": num_classes}
    settings["precision"] = checked_precision(precision)
    sweeps = _measured(classifier, jobs, progress, keep_clean=destinations, **settings)
    kept = np.arange(len(clean)) if mixed is None else np.flatnonzero(~mixed.is_overlay)
    same: dict[str, Any] = {"level": level, "seed": seed}
    if destinations:
        same["destinations"] = _compared_votes(sweeps, kept, len(clean) - len(kept), level, seed)
    clean_w, suspect_w, *under_mix = (each.wobbliness for each in sweeps)
    box_mix = None if mixed is None else _box_mix_w(mixed, *under_mix)
    found = compare_w(clean_w, suspect_w, box_mix=box_mix, **same)
    return replace(
        found, precision=precisions_of(run for each in sweeps for run in each.executions)
    )


def _box_mix_w(
    mixed: MixedImages,
    clean_w: dict[Any, Float[np.ndarray, " N"]],
    suspect_w: dict[Any, Float[np.ndarray, " M"]],
) -> BoxMixW:
    name = mixed.box_mix.name
    return BoxMixW(
        perturbation=name,
        clean=clean_w[name],
        suspect=suspect_w[name],
        num_overlays=mixed.num_overlays,
    )


def _compared_votes(
    found: Sequence[Sweep],
    kept: Int[np.ndarray, " R"],
    num_overlays: int,
    level: float,
    seed: int,
) -> DestinationComparison:
    """Compares where the votes of both batches go, under all perturbations together.

    Args:
        found: of clean and suspect inputs, and of both under box mix, where the clean ones are
            those kept.
        kept: rows of clean inputs that are not mixed with.
        num_overlays: those that are.
        level: as for `compare_batches`.
        seed: likewise.
    """
    (clean, suspect), under_mix = (
        [ProfileVotes.of(each.votes) for each in part] for part in (found[:2], found[2:])
    )
    names = [votes.perturbation for each in found[::2] for votes in each.votes]
    return compare_votes(
        joined([clean[kept], *under_mix[:1]]),
        joined([suspect, *under_mix[1:]]),
        names=names,
        num_overlays=num_overlays,
        level=level,
        seed=seed,
    )


def joined(found: Sequence[ProfileVotes]) -> ProfileVotes:
    """Returns votes of the same inputs under the perturbations of all, each a part of its own."""
    num_classes = max(each.counts.shape[2] for each in found)
    counts = np.concatenate([each.widened(num_classes).counts for each in found])
    return ProfileVotes(counts=counts, parts=np.arange(len(counts)), label=found[0].label)


def _measured(
    classifier: Any, jobs: Sequence[Job], progress: Progress | None, **settings: Any
) -> list[Sweep]:
    """Measures each batch under its perturbations."""
    reports = progress_of_parts([len(inputs) for inputs, _ in jobs], progress)
    return [
        sweep(classifier, inputs, made, progress=report, **settings)
        for (inputs, made), report in zip(jobs, reports, strict=True)
    ]


def compare_w(
    clean_w: BatchesOfW,
    suspect_w: BatchesOfW,
    *,
    level: float = 0.01,
    seed: int = 0,
    box_mix: BoxMixW | None = None,
    destinations: DestinationComparison | None = None,
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
        box_mix: W for a second test; the verdict is then one of two tests, corrected for both.
        destinations: a further test that is corrected for, too.

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
    # One of two tests is certain to give a verdict only at half the level.
    level_of_one = level / (1 + (box_mix is not None) + (destinations is not None))
    found = BatchComparison(
        level=level,
        sigma=sigma,
        levene_sigma=choose(levene_pvalues),
        power=_power(reference[sigma], num_suspect, level_of_one, seed),
        num_clean=len(compared),
        num_for_sigma=len(for_choice),
        num_suspect=num_suspect,
        at=tuple(_at(sigma, reference[sigma], suspect[sigma]) for sigma in clean),
        destinations=destinations,
    )
    return found if box_mix is None else _with_box_mix(found, box_mix, level_of_one, seed)


def _with_box_mix(
    found: BatchComparison, w: BoxMixW, level_of_one: float, seed: int
) -> BatchComparison:
    """Adds the second test."""
    _check_sizes(len(w.clean), len(w.suspect), 1)
    power = _power(w.clean, len(w.suspect), level_of_one, seed)
    return replace(
        found,
        power=max(found.power, power),
        box_mix=BoxMixTest(
            at=_at(w.perturbation, w.clean, w.suspect),
            num_clean=len(w.clean),
            num_overlays=w.num_overlays,
        ),
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
