"""measure() and sweep(): perturb each image, let the classifier vote, count."""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Int
from numpy.typing import ArrayLike

from wobbliness.classifiers.probing import CompanyError
from wobbliness.perturbations.base import Perturbation
from wobbliness.perturbations.noise.gaussian import sigma_of
from wobbliness.runtime.progress import Advance, Progress, progress_bar
from wobbliness.sampling.counting.checked_counting import count_checked
from wobbliness.sampling.counting.in_threads import Counted, clean_labels, count_in_threads
from wobbliness.sampling.counting.low_precision import FLOAT32, NO_GRAPH
from wobbliness.sampling.gating import plans_of
from wobbliness.sampling.plan import Plan, Precision, Prepared, Scores, make_plan
from wobbliness.sampling.repeating import require_repeated
from wobbliness.sampling.votes import DrawSpan, Sweep, Votes


def measure(
    classifier: Any,
    images: Any,
    sigma: float | Perturbation,
    draws: int = 250,
    seed: int = 0,
    *,
    keys: ArrayLike | None = None,
    first_draw: int = 0,
    block_size: int | None = None,
    workers: int | None = None,
    num_classes: int | None = None,
    device: str | None = None,
    check_repeatable: bool = False,
    keep_clean: bool = False,
    scores: Scores | None = None,
    precision: Precision = "float32",
    progress: Progress | None = None,
) -> Votes:
    """Measures the wobbliness of a classifier around each image (Eq. 1 to 3).

    Each image is copied `draws` times, Gaussian noise from N(0, sigma^2 I) is added and not
    clipped, and the classifier predicts a class for each copy. Another perturbation
    (`wobbliness.perturbations`) may take the place of the noise. The votes of an image depend on
    (classifier, image, perturbation, draws, seed) alone.

    >>> def left_or_right(images):
    ...     return (images[:, 0] > 0.5).astype(int)
    >>> votes = measure(left_or_right, [[0.5], [0.9]], sigma=0.1, draws=1000)
    >>> votes.wobbliness.round(2).tolist()
    [0.69, 0.0]

    Args:
        classifier: a `torch.nn.Module` that gives logits `(B, K)`, an opened classifier, or a
            callable from a batch to labels `(B,)` or scores `(B, K)`. A callable gets tensors if
            the images are a tensor, else arrays.
        images: `(N, ...)` float array or tensor in [0, 1]; pictures channels first, `(N, C, H, W)`.
            Other values where the perturbation takes them: `Columns` of tables, `TokenDrop` of ids.
        sigma: standard deviation of the noise, pixel units of [0, 1]; or another perturbation.
        draws: copies of each image; of a perturbation with a fixed number of draws at most those.
        seed: non-negative integer; another seed, other noise.
        keys: `(N,)` non-negative integers that key the noise instead of the images' own values (see
            `image_keys`).
        first_draw: number of the first draw; with it, votes of further draws can be added to
            earlier ones.
        block_size: copies classified at a time. Never changes the noise; by default from the
            largest step (`wobbliness.classifiers.execution.default_block_size`).
        workers: threads, each with whole images; by default one per core and one for their pauses,
            where the classifier allows it. Never changes the votes.
        num_classes: K, where the classifier gives labels only and the highest class may go unnamed.
        device: where a torch module runs, `cpu`, `cuda` or `mps`; by default where its parameters
            are. On an accelerator the noise is drawn there and differs from the CPU's (`mps` is
            untested).
        check_repeatable: whether to measure everything a second time, in another order and in
            blocks of another size, to find a classifier that does not always answer alike: dropout
            left on, a service that was exchanged, an answer that depends on the rest of a block.
            Takes twice as long. One label in ten thousand may differ, by rounding, if it does so
            again.
        keep_clean: whether to keep the predictions of the images as they are, too
            (`votes.clean_label`), which some readouts need: one more forward pass for each image.
        scores: what the classifier's scores are, `logits` or `probabilities`; with it, sums of the
            probabilities are kept (`votes.scores`), and `keep_clean` is set.
        precision: `float32`, or `checked` for votes of 8-bit integers, cast again by float32 where
            margins are small: at most one in ten thousand differs, with 99 % confidence, and
            `votes.changed_votes` says what an audit found. Where it cannot be used or does not pay,
            votes are those of float32 and `votes.execution.precision` says why.
        progress: called with (images done, images in all), in place of a bar on the terminal.

    Returns:
        Votes with counts `(N, K)`; `votes.execution` says how the forward passes were run: compiled
        or not, why not, block size.

    Raises:
        ValueError: bad images, sigma, draws or keys, a classifier that does not answer as said
            above, NaN scores, or other votes the second time. What the classifier itself raises
            comes through as it is.
    """
    return sweep(
        classifier,
        images,
        sigmas=[sigma],
        draws=draws,
        seed=seed,
        keys=keys,
        first_draw=first_draw,
        block_size=block_size,
        workers=workers,
        num_classes=num_classes,
        device=device,
        check_repeatable=check_repeatable,
        keep_clean=keep_clean,
        scores=scores,
        precision=precision,
        progress=progress,
    ).votes[0]


def sweep(
    classifier: Any,
    images: Any,
    sigmas: Iterable[float | Perturbation],
    draws: int = 250,
    seed: int = 0,
    *,
    keys: ArrayLike | None = None,
    first_draw: int = 0,
    block_size: int | None = None,
    workers: int | None = None,
    num_classes: int | None = None,
    device: str | None = None,
    check_repeatable: bool = False,
    keep_clean: bool = False,
    scores: Scores | None = None,
    precision: Precision = "float32",
    progress: Progress | None = None,
) -> Sweep:
    """Measures at several sigmas with the same standard-normal draws.

    All arguments but `sigmas` are those of `measure`; `sigmas` are distinct standard deviations in
    pixel units of [0, 1], or other perturbations.

    Returns:
        Sweep: `sweep[sigma]` is the Votes at that sigma, equal to what `measure` gives there; those
        of another perturbation stand under its name.

    Raises:
        ValueError: as for `measure`.
    """
    plan = make_plan(
        classifier,
        images,
        sigmas,
        draws=draws,
        seed=seed,
        keys=keys,
        first_draw=first_draw,
        block_size=block_size,
        workers=workers,
        num_classes=num_classes,
        device=device,
        keep_clean=keep_clean,
        scores=scores,
        precision=precision,
    )
    _check_comparable(plan, check_repeatable)
    plans = plans_of(plan)
    num_rounds = 2 if check_repeatable else 1
    num_steps = num_rounds * len(plans) * len(plan.images)
    with progress_bar("measuring", num_steps, report=progress) as advance:
        found = [_votes(part, _checked_counts(part, check_repeatable, advance)) for part in plans]
    votes = {each.perturbation: each for part in found for each in part}
    return Sweep(tuple(votes[perturbation.name] for perturbation in plan.perturbations))


def _check_comparable(plan: Plan, check_repeatable: bool) -> None:
    if check_repeatable and plan.precision != "float32":
        raise ValueError(
            "expected float32 where votes are to be repeated, which other images, by which low "
            f"precision is calibrated, may change, got {plan.precision}"
        )


def _checked_counts(plan: Plan, check_repeatable: bool, advance: Advance) -> Counted:
    """Counts the votes of all images, and once more where that is asked for."""
    counted = _count_all(plan, advance)
    if check_repeatable:
        again = partial(_votes_again, advance=advance)
        require_repeated(plan, counted.execution.block_size or 1, counted.counts, again)
    return counted


def _votes(plan: Plan, counted: Counted) -> list[Votes]:
    """Returns the votes under each perturbation of a plan."""
    return [
        Votes(
            counts=counted.counts[:, row].copy(),  # kept alone, it does not hold the others
            sigma=sigma_of(perturbation),
            perturbation=perturbation.name,
            keys=plan.keys,
            spans=(_as_span(plan.seed, plan.span_of(row)),),
            executions=(counted.execution_of(row),),
            clean_label=counted.clean_label,
            scores=None if counted.scores is None else counted.scores.of_row(row),
            changed_votes=counted.changed_votes[row] if counted.changed_votes else None,
        )
        for row, perturbation in enumerate(plan.perturbations)
    ]


def _as_span(seed: int, span: range) -> DrawSpan:
    return DrawSpan(seed=seed, first=span.start, stop=span.stop)


def _votes_again(plan: Plan, advance: Advance) -> Int[np.ndarray, "N S K"]:
    return _count_all(plan, advance).counts


def _count_all(plan: Plan, advance: Advance) -> Counted:
    """Counts the votes of all images."""
    return plan.run(lambda prepared: _count_prepared(plan, prepared, advance))


def _count_prepared(plan: Plan, prepared: Prepared, advance: Advance) -> Counted:
    """Counts the votes of all images.

    What was reported as done is taken back where they are to be counted once more.
    """
    num_done = 0

    def report(num_images: int) -> None:
        nonlocal num_done
        num_done += num_images
        advance(num_images)

    try:
        if plan.is_on_device:
            return _count_on_device(plan, prepared, report)
        if plan.precision == "checked":
            return count_checked(plan, prepared, report)
        return count_in_threads(plan, prepared, report)
    except CompanyError:
        advance(-num_done)
        raise


def _count_on_device(plan: Plan, prepared: Prepared, advance: Advance) -> Counted:
    from wobbliness.sampling.counting.device_counting import DeviceCounter

    # Imported here: torch is not needed for other classifiers.
    execution = prepared.execution
    if plan.precision == "checked":
        execution = replace(execution, precision=FLOAT32.format(NO_GRAPH))
    counter = DeviceCounter(plan, block_size=execution.block_size or 1)
    counts = counter.count(np.arange(len(plan.images)), plan.span, advance)
    return Counted(
        counts=counts,
        execution=replace(execution, changed_labels=counter.changed_labels),
        clean_label=clean_labels(plan, prepared) if plan.keeps_clean else None,
    )
