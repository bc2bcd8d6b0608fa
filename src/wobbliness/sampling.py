"""measure() and sweep(): perturb each image, let the classifier vote, count."""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float32, Int, UInt64
from numpy.typing import ArrayLike

from wobbliness.classifiers import Classifier, open_classifier
from wobbliness.execution import Execution, default_block_size
from wobbliness.noise import NormalStream, Scratch, image_keys
from wobbliness.progress import Advance, Progress, progress_bar
from wobbliness.votes import DrawSpan, Sweep, Votes
from wobbliness.workers import default_workers, for_each

NOISE_VALUES = 2**18  # drawn at once: few calls, and still within the cache
EXAMPLES = 16  # images that a classifier is prepared with, each also with noise
PICTURE_CHANNELS = (1, 3, 4)
MAX_SIGMA = 1e30  # beyond it noise overflows float32


def measure(
    classifier: Any,
    images: Any,
    sigma: float,
    draws: int = 250,
    seed: int = 0,
    *,
    keys: ArrayLike | None = None,
    first_draw: int = 0,
    block_size: int | None = None,
    workers: int | None = None,
    num_classes: int | None = None,
    progress: Progress | None = None,
) -> Votes:
    """Wobbliness of a classifier around each image (Eq. 1 to 3).

    Each image is copied `draws` times, noise from N(0, sigma^2 I) is added and not clipped, and the classifier names a class for
    each copy. The votes of an image depend on (classifier, image, sigma, draws, seed) alone.

    >>> def left_or_right(images):
    ...     return (images[:, 0] > 0.5).astype(int)
    >>> votes = measure(left_or_right, [[0.5], [0.9]], sigma=0.1, draws=1000)
    >>> votes.wobbliness.round(2).tolist()
    [0.69, 0.0]

    Args:
        classifier: a `torch.nn.Module` that gives logits `(B, K)`, an opened classifier, or a callable from a batch to labels
            `(B,)` or scores `(B, K)`. A callable gets tensors if the images are a tensor, else arrays.
        images: `(N, ...)` float array or tensor in [0, 1]; pictures channels first, `(N, C, H, W)`.
        sigma: standard deviation of the noise, pixel units of [0, 1].
        draws: noisy copies of each image.
        seed: non-negative integer; another seed, other noise.
        keys: `(N,)` non-negative integers that key the noise instead of the images' own values (see `image_keys`).
        first_draw: number of the first draw; with it, votes of further draws can be added to earlier ones.
        block_size: copies classified at once. Never changes the noise; by default from the largest step
            (`wobbliness.execution.default_block_size`).
        workers: threads, each with whole images; by default one per core and one for their pauses, where the classifier allows
            it. Never changes the votes.
        num_classes: K, where the classifier gives labels only and the highest class may go unnamed.
        progress: called with (images done, images in all), in place of a bar on the terminal.

    Returns:
        Votes with counts `(N, K)`; `votes.execution` says how the forward passes were run: compiled or not, why not, block size.

    Raises:
        ValueError: bad images, sigma, draws or keys, or a classifier that does not answer as said above.
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
        progress=progress,
    ).votes[0]


def sweep(
    classifier: Any,
    images: Any,
    sigmas: Iterable[float],
    draws: int = 250,
    seed: int = 0,
    *,
    keys: ArrayLike | None = None,
    first_draw: int = 0,
    block_size: int | None = None,
    workers: int | None = None,
    num_classes: int | None = None,
    progress: Progress | None = None,
) -> Sweep:
    """`measure` at several sigmas with the same standard-normal draws.

    All arguments but `sigmas` are those of `measure`; `sigmas` are distinct standard deviations in pixel units of [0, 1].

    Returns:
        Sweep: `sweep[sigma]` is the Votes at that sigma, equal to what `measure` gives there.

    Raises:
        ValueError: as for `measure`.
    """
    is_tensor = hasattr(images, "detach")
    array = _checked_images(images)
    plan = _Plan(
        classifier=open_classifier(classifier, num_classes=num_classes, as_tensor=is_tensor),
        images=array,
        keys=_checked_keys(keys, array),
        sigmas=_checked_sigmas(sigmas),
        seed=_checked_integer(seed, "a seed", at_least=0),
        span=_checked_span(first_draw, draws),
        block_size=None if block_size is None else _checked_integer(block_size, "a block size", at_least=1),
        workers=None if workers is None else _checked_integer(workers, "workers", at_least=1),
    )
    with progress_bar("measuring", len(array), report=progress) as advance:
        counts, execution = _count_all(plan, advance)
    span = DrawSpan(seed=plan.seed, first=plan.span.start, stop=plan.span.stop)
    return Sweep(
        tuple(
            Votes(counts=counts[:, index].copy(), sigma=sigma, keys=plan.keys, spans=(span,), executions=(execution,))
            for index, sigma in enumerate(plan.sigmas)
        )
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Plan:
    """Everything that determines the votes, checked."""

    classifier: Classifier
    images: np.ndarray
    keys: UInt64[np.ndarray, " N"]
    sigmas: tuple[float, ...]
    seed: int
    span: range
    block_size: int | None
    workers: int | None


def _count_all(plan: _Plan, advance: Advance) -> tuple[Int[np.ndarray, "N S K"], Execution]:
    """The votes of all images."""
    with plan.classifier.session(_examples(plan)) as execution:
        block_size = plan.block_size or default_block_size(len(plan.span), execution.values_per_image or 2 * plan.images[0].size)
        tally = _Tally(len(plan.images), len(plan.sigmas), plan.classifier.num_classes or 1)
        counter = _Counter(plan, block_size)
        workers = (plan.workers or default_workers()) if plan.classifier.thread_safe else 1
        for_each(lambda index: tally.put(index, counter(index)), len(plan.images), workers=workers, advance=advance)
    return tally.counts, replace(execution, block_size=block_size)


class _Tally:
    """Votes of all images; a column is added when a class beyond the last one is first named."""

    def __init__(self, num_images: int, num_sigmas: int, num_classes: int) -> None:
        self.counts = np.zeros((num_images, num_sigmas, num_classes), dtype=np.int64)
        self._lock = threading.Lock()

    def put(self, index: int, votes: Int[np.ndarray, "S K"]) -> None:
        with self._lock:
            self.counts = _widened(self.counts, votes.shape[1])
            self.counts[index, :, : votes.shape[1]] = votes


def _examples(plan: _Plan) -> Float32[np.ndarray, "B ..."]:
    """Some of the images, as they are and with noise of the largest sigma."""
    images = np.asarray(plan.images[:EXAMPLES], dtype=np.float32)
    noise = [NormalStream(plan.seed, int(key), image.shape).take(1) for key, image in zip(plan.keys, images, strict=False)]
    return np.concatenate([images, images + np.concatenate(noise) * np.float32(max(plan.sigmas))])


class _Counter:
    """Counts the votes of one image at a time; may be called by several threads, each with memory of its own."""

    def __init__(self, plan: _Plan, block_size: int) -> None:
        self._plan, self._block_size = plan, block_size
        self._chunk = block_size * max(1, NOISE_VALUES // (plan.images[0].size * block_size))
        self._own = threading.local()

    def __call__(self, index: int) -> Int[np.ndarray, "S K"]:
        plan, scratch, last = self._plan, self._scratch(), len(self._plan.sigmas) - 1
        image = np.asarray(plan.images[index], dtype=np.float32)
        counts = np.zeros((len(plan.sigmas), plan.classifier.num_classes or 1), dtype=np.int64)
        stream = NormalStream(plan.seed, int(plan.keys[index]), image.shape, first_draw=plan.span.start, scratch=scratch)
        for first in plan.span[:: self._chunk]:
            noise = stream.take(min(self._chunk, plan.span.stop - first))
            for row, sigma in enumerate(plan.sigmas):
                noisy = noise if row == last else scratch.array("noisy", noise.shape)
                np.multiply(noise, np.float32(sigma), out=noisy)
                noisy += image
                labels = plan.classifier.classify(noisy, self._block_size)
                counts = _widened(counts, plan.classifier.num_classes or 1 + int(labels.max()))
                counts[row] += np.bincount(labels, minlength=counts.shape[1])
        return counts

    def _scratch(self) -> Scratch:
        if not hasattr(self._own, "scratch"):
            self._own.scratch = Scratch()
        scratch: Scratch = self._own.scratch
        return scratch


def _widened(counts: Int[np.ndarray, "... K"], num_classes: int) -> Int[np.ndarray, "... L"]:
    """Counts with columns for `num_classes` at least: a class beyond the last one may be named at any time."""
    missing = num_classes - counts.shape[-1]
    return counts if missing <= 0 else np.pad(counts, [(0, 0)] * (counts.ndim - 1) + [(0, missing)])


def _checked_images(images: Any) -> np.ndarray:
    """Images as an array without a copy: floating point, finite, in [0, 1], at least one, channels first."""
    array = np.asarray(images.detach().cpu() if hasattr(images, "detach") else images)
    if array.ndim < 2 or 0 in array.shape:
        raise ValueError(f"expected images of shape (N, ...), at least one and none empty, got shape {array.shape}")
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"expected images as floats in [0, 1], got {array.dtype}; divide 8-bit pixels by 255")
    if array.ndim == 4 and array.shape[1] not in PICTURE_CHANNELS and array.shape[3] in PICTURE_CHANNELS:
        raise ValueError(f"expected pictures channels first (N, C, H, W), got shape {array.shape}")
    lowest, highest = array.min(), array.max()
    if not (lowest >= 0 and highest <= 1):
        raise ValueError(f"expected images in [0, 1], got values from {lowest} to {highest}")
    return array


def _checked_keys(keys: ArrayLike | None, images: np.ndarray) -> UInt64[np.ndarray, " N"]:
    if keys is None:
        return image_keys(images)
    array = np.asarray(keys)
    if array.shape != (len(images),) or not np.issubdtype(array.dtype, np.integer) or array.min() < 0:
        raise ValueError(f"expected {len(images)} non-negative integer keys, got {array.dtype} of shape {array.shape}")
    return array.astype(np.uint64)


def _checked_sigmas(sigmas: Iterable[float]) -> tuple[float, ...]:
    values: Sequence[float] = [float(sigma) for sigma in sigmas]
    if not values or len(set(values)) < len(values):
        raise ValueError(f"expected distinct sigmas, at least one, got {values}")
    for sigma in values:
        if not 0 <= sigma <= MAX_SIGMA:
            raise ValueError(f"expected a finite sigma from 0 to {MAX_SIGMA:g}, got {sigma}")
    return tuple(values)


def _checked_integer(value: Any, name: str, *, at_least: int) -> int:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < at_least:
        raise ValueError(f"expected {name} as an integer of at least {at_least}, got {value!r}")
    return int(value)


def _checked_span(first_draw: Any, draws: Any) -> range:
    first = _checked_integer(first_draw, "a first draw", at_least=0)
    return range(first, first + _checked_integer(draws, "draws", at_least=1))
