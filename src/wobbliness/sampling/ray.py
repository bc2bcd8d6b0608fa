"""Sweep over a large set of images, in shards on a Ray cluster."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from wobbliness.perturbations.base import Perturbation
from wobbliness.runtime.progress import Progress, progress_bar
from wobbliness.runtime.ray import num_cpus, ray_cluster
from wobbliness.sampling.measure import sweep
from wobbliness.sampling.score_sums import joined_sums
from wobbliness.sampling.votes import Sweep, Votes

SHARDS_PER_CPU = 4  # so that a slow node does not keep all others waiting at the end
MAX_SHARD_IMAGES = 1024
RETRIES = 3


def sweep_on_ray(
    open_model: Callable[[], Any],
    images: Any,
    sigmas: Iterable[float | Perturbation],
    draws: int = 250,
    seed: int = 0,
    *,
    keys: ArrayLike | None = None,
    address: str | None = None,
    shard_size: int | None = None,
    cpus_per_shard: float = 1.0,
    gpus_per_shard: float = 0.0,
    progress: Progress | None = None,
    **settings: Any,
) -> Sweep:
    """Measures as `sweep` does, with the images shared out over a Ray cluster.

    The votes are the same.

    An image's votes depend on the image and not on its neighbours, so that it does not matter where
    it is measured. Twice as many shards as there are cores are running or waiting at any time:
    `images` may be larger than the memory, for instance a memory-mapped file.

    Args:
        open_model: called without arguments for each shard, where that is measured; gives what
            `sweep` takes as its classifier.
        images: `(N, ...)` float array or tensor in [0, 1], or what gives such parts when sliced.
        sigmas: distinct standard deviations of the noise, pixel units of [0, 1], or perturbations.
        draws: noisy copies of each image.
        seed: non-negative integer; another seed, other noise.
        keys: `(N,)` non-negative integers that key the noise instead of the images' own values.
        address: of the cluster (see `wobbliness.runtime.ray`); None for a Ray of this machine
            alone.
        shard_size: images in a shard; by default four shards for each core of the cluster, of at
            most 1024 images.
        cpus_per_shard: cores, and threads, granted to a shard.
        gpus_per_shard: accelerators granted to a shard; pass `device="cuda"` too.
        progress: called with (images done, images in all), in place of a bar on the terminal.
        **settings: further arguments of `sweep`: `num_classes`, `device`, `block_size`,
            `first_draw`, `check_repeatable`; in float32 alone, since each shard would calibrate
            another low precision.

    Raises:
        ValueError: as for `sweep`; Ray is not installed, or there is no cluster at the address;
            another precision than float32.
    """
    if (precision := settings.get("precision", "float32")) != "float32":
        raise ValueError(f"expected float32 on Ray, got the precision {precision}")
    values = tuple(sigmas)
    with (
        ray_cluster(address) as ray,
        progress_bar("measuring", len(images), report=progress) as advance,
    ):
        size = shard_size or _shard_size(len(images), num_cpus(ray))
        granted = {"num_cpus": cpus_per_shard, "num_gpus": gpus_per_shard, "max_retries": RETRIES}
        measure = ray.remote(**granted)(_measure_shard)
        # Put once: a node keeps it in memory for all of its shards.
        common = ray.put(_Common(open_model, values, draws, seed, settings))
        tasks = _tasks(measure, common, images, keys, size)
        parts = []
        for part in _in_order(ray, tasks, max_pending=2 * num_cpus(ray)):
            parts.append(part)
            advance(len(part.votes[0]))
    return joined(parts)


def _tasks(
    measure: Any, common: Any, images: Any, keys: ArrayLike | None, size: int
) -> Iterator[Any]:
    """Yields a task for each shard; its images are read when the task is started."""
    own_keys = None if keys is None else np.asarray(keys)
    for first in range(0, max(1, len(images)), size):
        shard = slice(first, first + size)
        yield measure.remote(common, images[shard], None if own_keys is None else own_keys[shard])


def joined(parts: Sequence[Sweep]) -> Sweep:
    """Joins votes of several sets of images, one after another.

    Args:
        parts: at the same sigmas, with the same draws.

    Raises:
        ValueError: there is none, or their sigmas or draws differ.
    """
    if len({(tuple(part), part.votes[0].spans) for part in parts}) != 1:
        raise ValueError(
            f"expected votes at the same sigmas, of the same draws, got {len(parts)} parts that "
            "do not go together"
        )
    return Sweep(
        tuple(
            _joined_votes([part.votes[index] for part in parts]) for index in range(len(parts[0]))
        )
    )


@dataclass(frozen=True)
class _Common:
    """Arguments that all shards have in common; kept in Ray's memory once a node."""

    open_model: Callable[[], Any]
    sigmas: tuple[float | Perturbation, ...]
    draws: int
    seed: int
    settings: dict[str, Any]


def _measure_shard(common: _Common, images: Any, keys: np.ndarray | None) -> Sweep:
    return sweep(
        common.open_model(),
        images,
        common.sigmas,
        draws=common.draws,
        seed=common.seed,
        keys=keys,
        **common.settings,
    )


def _shard_size(num_images: int, cores: int) -> int:
    # Rounded up, so that there are never more shards than that.
    return max(1, min(MAX_SHARD_IMAGES, -(-num_images // (SHARDS_PER_CPU * cores))))


def _in_order(ray: Any, tasks: Iterator[Any], *, max_pending: int) -> Iterator[Any]:
    """Yields results in the order of the tasks, of which at most so many run or wait."""
    # Bounded, so that no more images are in the cluster's memory than are needed soon.
    pending: list[Any] = []
    for task in tasks:
        pending.append(task)
        if len(pending) == max_pending:
            # The oldest first: results keep the order of the images.
            yield _result(ray, pending.pop(0))
    for task in pending:
        yield _result(ray, task)


def _result(ray: Any, task: Any) -> Any:
    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError as error:
        # The error itself, as without Ray, and not the wrapper with a remote traceback.
        raise error.cause from None


def _joined_votes(parts: Sequence[Votes]) -> Votes:
    num_classes = max(part.counts.shape[1] for part in parts)
    counts = [
        # A shard may lack the highest classes.
        np.pad(part.counts, ((0, 0), (0, num_classes - part.counts.shape[1])))
        for part in parts
    ]
    return Votes(
        counts=np.concatenate(counts),
        sigma=parts[0].sigma,
        perturbation=parts[0].perturbation,
        keys=np.concatenate([part.keys for part in parts]),
        spans=parts[0].spans,
        executions=tuple(
            dict.fromkeys(execution for part in parts for execution in part.executions)
        ),
        clean_label=_joined_labels([part.clean_label for part in parts]),
        scores=joined_sums([part.scores for part in parts]),
    )


def _joined_labels(parts: Sequence[np.ndarray | None]) -> np.ndarray | None:
    there = [part for part in parts if part is not None]
    return np.concatenate(there) if len(there) == len(parts) else None
