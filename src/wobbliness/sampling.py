"""measure() and sweep(): perturb each image, let the classifier vote, count."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float32, Int, UInt64
from numpy.typing import ArrayLike

from wobbliness.classifiers import Classifier, open_classifier
from wobbliness.noise import image_keys, standard_normal
from wobbliness.progress import Advance, Progress, progress_bar
from wobbliness.votes import DrawSpan, Sweep, Votes

BLOCK_VALUES = 25_000  # values in a block of noisy images, so that a network's activations stay in a core's cache
MIN_BLOCK, MAX_BLOCK = 25, 64
IMAGES_AHEAD = 64  # images handed to the threads before their votes are collected
PICTURE_CHANNELS = (1, 3, 4)
MAX_SIGMA = 1e30  # beyond it noise overflows float32

Result = TypeVar("Result")


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
        block_size: most copies classified at once. Never changes the noise; by default set from the images' size.
        workers: threads, each with whole images; by default one per core where the classifier allows it. Never changes the votes.
        num_classes: K, where the classifier gives labels only and the highest class may go unnamed.
        progress: called with (images done, images in all), in place of a bar on the terminal.

    Returns:
        Votes with counts `(N, K)`.

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
        first_draw=_checked_integer(first_draw, "a first draw", at_least=0),
        block_sizes=_block_sizes(_checked_integer(draws, "draws", at_least=1), array[0].size, block_size),
    )
    with progress_bar("measuring", len(array), report=progress) as advance:
        counts = _count_all(plan, _num_workers(plan.classifier, workers), advance)
    span = DrawSpan(seed=plan.seed, first=plan.first_draw, stop=plan.first_draw + sum(plan.block_sizes))
    return Sweep(
        tuple(
            Votes(counts=counts[:, index].copy(), sigma=sigma, keys=plan.keys, spans=(span,))
            for index, sigma in enumerate(plan.sigmas)
        )
    )


def num_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True, eq=False)
class _Plan:
    """Everything that determines the votes, checked."""

    classifier: Classifier
    images: np.ndarray
    keys: UInt64[np.ndarray, " N"]
    sigmas: tuple[float, ...]
    seed: int
    first_draw: int
    block_sizes: list[int]


def _count_all(plan: _Plan, workers: int, advance: Advance) -> Int[np.ndarray, "N S K"]:
    """The votes of all images; a column is added when a class beyond the last one is first named."""
    num_images = len(plan.images)
    counts = np.zeros((num_images, len(plan.sigmas), plan.classifier.num_classes or 1), dtype=np.int64)
    with plan.classifier.session():
        for index, votes in enumerate(_ordered_map(lambda i: _count_image(plan, i), num_images, workers)):
            missing = votes.shape[1] - counts.shape[2]
            if missing > 0:
                counts = np.pad(counts, ((0, 0), (0, 0), (0, missing)))
            counts[index, :, : votes.shape[1]] = votes
            advance(1)
    return counts


def _count_image(plan: _Plan, index: int) -> Int[np.ndarray, "S K"]:
    image = np.asarray(plan.images[index], dtype=np.float32)
    labels: list[list[np.ndarray]] = [[] for _ in plan.sigmas]
    noise = standard_normal(
        plan.seed, int(plan.keys[index]), image.shape, first_draw=plan.first_draw, block_sizes=plan.block_sizes
    )
    for block in noise:
        for sigma, named in zip(plan.sigmas, labels, strict=True):
            named.append(plan.classifier.classify(_perturbed(image, block, sigma)))
    num_classes = plan.classifier.num_classes or 1 + max(int(named.max()) for blocks in labels for named in blocks)
    return np.stack([np.bincount(np.concatenate(blocks), minlength=num_classes) for blocks in labels])


def _perturbed(
    image: Float32[np.ndarray, "..."], noise: Float32[np.ndarray, "B ..."], sigma: float
) -> Float32[np.ndarray, "B ..."]:
    noisy = noise * np.float32(sigma)
    noisy += image
    return noisy


def _ordered_map(function: Callable[[int], Result], num_items: int, workers: int) -> Iterator[Result]:
    """`map` over 0 ... num_items - 1, in threads that never run more than a fixed number of items ahead."""
    items = iter(range(num_items))
    if workers == 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        try:
            while ahead := list(islice(items, IMAGES_AHEAD)):
                yield from pool.map(function, ahead)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _block_sizes(draws: int, image_size: int, block_size: int | None) -> list[int]:
    """Blocks of one size and a rest. By default as few blocks as keep within BLOCK_VALUES, and all of nearly one size."""
    if block_size is None:
        num_blocks = -(-draws // min(MAX_BLOCK, max(MIN_BLOCK, BLOCK_VALUES // image_size)))
        size = -(-draws // num_blocks)
    else:
        size = _checked_integer(block_size, "a block size", at_least=1)
    return [size] * (draws // size) + ([draws % size] if draws % size else [])


def _num_workers(classifier: Classifier, workers: int | None) -> int:
    if workers is not None:
        return _checked_integer(workers, "workers", at_least=1) if classifier.thread_safe else 1
    return num_cores() if classifier.thread_safe else 1


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
