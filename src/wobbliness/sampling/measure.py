"""measure() and sweep(): perturb each image, let the classifier vote, count."""

import threading
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Int
from numpy.typing import ArrayLike

from wobbliness.classifiers.execution import Execution
from wobbliness.classifiers.probing import CompanyError
from wobbliness.perturbations.base import Perturbation, Scratch, Stream
from wobbliness.perturbations.gaussian import sigma_of
from wobbliness.runtime.progress import Advance, Progress, progress_bar
from wobbliness.runtime.threads import check_stopped, for_each
from wobbliness.sampling.plan import NOISE_VALUES, Plan, Prepared, make_plan
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
    progress: Progress | None = None,
) -> Votes:
    """Measures the wobbliness of a classifier around each image (Eq. 1 to 3).

    Each image is copied `draws` times, Gaussian noise from N(0, sigma^2 I) is added and not
    clipped, and the classifier predicts a class for each copy. The votes of an image depend on
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
        sigma: standard deviation of the noise, pixel units of [0, 1]; or another perturbation
            (`wobbliness.perturbations.base.Perturbation`).
        draws: noisy copies of each image.
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
    )
    return _as_sweep(plan, *_checked_counts(plan, check_repeatable, progress))


def _checked_counts(
    plan: Plan, check_repeatable: bool, progress: Progress | None
) -> tuple[Int[np.ndarray, "N S K"], Execution]:
    """Counts the votes of all images, and once more where that is asked for."""
    num_rounds = 2 if check_repeatable else 1
    with progress_bar("measuring", num_rounds * len(plan.images), report=progress) as advance:
        counts, execution = _count_all(plan, advance)
        if check_repeatable:
            again = partial(_votes_again, advance=advance)
            require_repeated(plan, execution.block_size or 1, counts, again)
    return counts, execution


def _as_sweep(plan: Plan, counts: Int[np.ndarray, "N S K"], execution: Execution) -> Sweep:
    span = DrawSpan(seed=plan.seed, first=plan.span.start, stop=plan.span.stop)
    return Sweep(
        tuple(
            Votes(
                counts=counts[:, index].copy(),  # kept alone, it does not hold the others
                sigma=sigma_of(perturbation),
                perturbation=perturbation.name,
                keys=plan.keys,
                spans=(span,),
                executions=(execution,),
            )
            for index, perturbation in enumerate(plan.perturbations)
        )
    )


def _votes_again(plan: Plan, advance: Advance) -> Int[np.ndarray, "N S K"]:
    return _count_all(plan, advance)[0]


def _count_all(plan: Plan, advance: Advance) -> tuple[Int[np.ndarray, "N S K"], Execution]:
    """The votes of all images."""
    return plan.run(lambda prepared: _count_prepared(plan, prepared, advance))


def _count_prepared(
    plan: Plan, prepared: Prepared, advance: Advance
) -> tuple[Int[np.ndarray, "N S K"], Execution]:
    """Returns the votes of all images.

    What was reported as done is taken back where they are to be counted once more.
    """
    num_done = 0

    def report(num_images: int) -> None:
        nonlocal num_done
        num_done += num_images
        advance(num_images)

    try:
        if plan.is_on_device:
            return _count_on_device(plan, prepared.execution, report)
        return _count_in_threads(plan, prepared, report), prepared.execution
    except CompanyError:
        advance(-num_done)
        raise


def _count_in_threads(plan: Plan, prepared: Prepared, report: Advance) -> Int[np.ndarray, "N S K"]:
    tally = _Tally(len(plan.images), len(plan.perturbations), plan.classifier.num_classes or 1)
    counter = _Counter(plan, prepared)
    for_each(
        lambda index: tally.put(index, counter(index)),
        len(plan.images),
        workers=plan.num_workers,
        advance=report,
    )
    return tally.counts


def _count_on_device(
    plan: Plan, execution: Execution, advance: Advance
) -> tuple[Int[np.ndarray, "N S K"], Execution]:
    from wobbliness.sampling.device_counting import DeviceCounter

    # Imported here: torch is not needed for other classifiers.
    counter = DeviceCounter(plan, block_size=execution.block_size or 1)
    counts = counter.count(np.arange(len(plan.images)), plan.span, advance)
    return counts, replace(execution, changed_labels=counter.changed_labels)


class _Tally:
    """Votes of all images; a column is added when a class beyond the last one is first named."""

    def __init__(self, num_images: int, num_sigmas: int, num_classes: int) -> None:
        self.counts = np.zeros((num_images, num_sigmas, num_classes), dtype=np.int64)
        self._lock = threading.Lock()

    def put(self, index: int, votes: Int[np.ndarray, "S K"]) -> None:
        # Another thread may replace the counts by wider ones.
        with self._lock:
            self.counts = _widened(self.counts, votes.shape[1])
            self.counts[index, :, : votes.shape[1]] = votes


class _Counter:
    """Counts the votes of one image at a time; each thread has memory of its own."""

    def __init__(self, plan: Plan, prepared: Prepared) -> None:
        self._plan, self._classify = plan, prepared.classify
        self._block_size = block_size = prepared.execution.block_size or 1
        # Whole blocks of noise at a time, as many as fit within the cache.
        self._chunk = block_size * max(1, NOISE_VALUES // (plan.images[0].size * block_size))
        self._own = threading.local()

    def __call__(self, index: int) -> Int[np.ndarray, "S K"]:
        plan, scratch = self._plan, self._scratch()
        image = np.asarray(plan.images[index], dtype=np.float32)
        # Of a classifier that gives labels alone K may be unknown: columns are added as they come.
        shape = (len(plan.perturbations), plan.classifier.num_classes or 1)
        counts = np.zeros(shape, dtype=np.int64)
        stream = Stream(
            plan.seed, int(plan.keys[index]), first_draw=plan.span.start, scratch=scratch
        )
        for first in plan.span[:: self._chunk]:
            draws = min(self._chunk, plan.span.stop - first)
            copies = scratch.array("copies", (draws, *image.shape))
            for row, perturbation in enumerate(plan.perturbations):
                # Between two calls of the classifier: Ctrl-C need not wait for an image's end.
                check_stopped()
                # The same draws for each perturbation; `copies` is filled again and again.
                perturbation.copies(stream, image, draws, copies)
                labels = self._classify(copies, self._block_size)
                counts = _widened(counts, plan.classifier.num_classes or 1 + int(labels.max()))
                counts[row] += np.bincount(labels, minlength=counts.shape[1])
            # Only now: the next chunk's draws follow those that all perturbations had.
            stream.turn(draws)
        return counts

    def _scratch(self) -> Scratch:
        # Made once a thread and used again for every image.
        if not hasattr(self._own, "scratch"):
            self._own.scratch = Scratch()
        scratch: Scratch = self._own.scratch
        return scratch


def _widened(counts: Int[np.ndarray, "... K"], num_classes: int) -> Int[np.ndarray, "... L"]:
    """Adds columns for `num_classes` at least: any call may predict a class beyond the last."""
    missing = num_classes - counts.shape[-1]
    return counts if missing <= 0 else np.pad(counts, [(0, 0)] * (counts.ndim - 1) + [(0, missing)])
