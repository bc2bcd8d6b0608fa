"""Test of a batch of inputs by where its votes go: also for attacks that make nothing smoother.

Around a trigger that sends every class elsewhere (all to all) W hardly falls; the votes still stray
to other classes than those of clean inputs with the same prediction.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from wobbliness.classifiers.execution import precisions_of
from wobbliness.detectors.batches.batch_test import without_copies
from wobbliness.detectors.batches.destination_results import DestinationComparison, compare_votes
from wobbliness.detectors.batches.mixed_images import mix_with_some
from wobbliness.detectors.guards.vote_reading import ProfileVotes
from wobbliness.perturbations.base import Perturbation
from wobbliness.runtime.progress import Progress, progress_of_parts
from wobbliness.sampling.measure import sweep
from wobbliness.sampling.plan import Precision, checked_precision

DEFAULT_NOISE = (0.2, 0.4)
MIN_CLEAN, MIN_SUSPECT = 16, 2


def compare_destinations(
    classifier: Any,
    clean: Any,
    suspect: Any,
    *,
    perturbations: Iterable[float | Perturbation] | None = None,
    draws: int = 250,
    level: float = 0.01,
    seed: int = 0,
    num_classes: int | None = None,
    precision: Precision = "float32",
    progress: Progress | None = None,
) -> DestinationComparison:
    """Tests whether the votes of a suspect batch go elsewhere than those of clean inputs.

    An input's votes are compared with the mean votes of the clean inputs of the same prediction by
    their log-likelihood ratio, summed over the perturbations; who is suspect is permuted within
    each prediction (`wobbliness.statistics.destinations`). The p-value is exact for any number of
    inputs, and one for all perturbations. Batches may differ in the share of each class. Copies of
    an input count once.

    Args:
        classifier: as for `measure`.
        clean: `(N, ...)` inputs known to be clean, in [0, 1].
        suspect: `(M, ...)` inputs in question.
        perturbations: or sigmas; by default Gaussian noise of 0.2 and 0.4 and, for pictures,
            `BoxMix` with a fifth of the clean inputs, at most a hundred, which are compared with
            nothing. Overlays that are given must be neither clean nor suspect inputs.
        draws: as for `measure`.
        level: false-positive rate of the verdict.
        seed: of the draws, of the choice of overlays and of the permutations.
        num_classes: K, as for `measure`.
        precision: as for `measure`.
        progress: called with (inputs done, inputs in all).

    Raises:
        ValueError: as for `measure`; fewer than 16 clean inputs or 2 suspect ones; a level out of
            range; most inputs of a batch are copies; overlays are among the inputs.
    """
    if not 0 < level < 1:
        raise ValueError(f"expected a level in (0, 1), got {level!r}")
    made = list(DEFAULT_NOISE if perturbations is None else perturbations)
    clean = without_copies(clean, "clean inputs", made)
    suspect = without_copies(suspect, "suspect inputs", made)
    _check_sizes(len(clean), len(suspect))
    mixed = None
    if perturbations is None:
        mixed = mix_with_some(clean, suspect, np.arange(len(clean)), seed)
    if mixed is not None:
        clean, made = clean[~mixed.is_overlay], [*made, mixed.box_mix]
    settings: dict[str, Any] = {"draws": draws, "seed": seed, "num_classes": num_classes}
    settings["precision"] = checked_precision(precision)
    reports = progress_of_parts((len(clean), len(suspect)), progress)
    clean_votes, suspect_votes = (
        sweep(classifier, inputs, made, keep_clean=True, progress=report, **settings)
        for inputs, report in zip((clean, suspect), reports, strict=True)
    )
    found = compare_votes(
        ProfileVotes.of(clean_votes.votes),
        ProfileVotes.of(suspect_votes.votes),
        names=[votes.perturbation for votes in clean_votes.votes],
        num_overlays=0 if mixed is None else mixed.num_overlays,
        level=level,
        seed=seed,
    )
    return replace(
        found, precision=precisions_of(clean_votes.executions + suspect_votes.executions)
    )


def _check_sizes(num_clean: int, num_suspect: int) -> None:
    if num_clean < MIN_CLEAN or num_suspect < MIN_SUSPECT:
        raise ValueError(
            f"expected at least {MIN_CLEAN} clean inputs and {MIN_SUSPECT} suspect ones, got "
            f"{num_clean} and {num_suspect}"
        )
