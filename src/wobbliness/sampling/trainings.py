"""measure_trainings(): perturb the labels of a training set, train, let the classifiers vote."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Int, UInt64
from numpy.typing import ArrayLike

from wobbliness.classifiers import open_classifier
from wobbliness.classifiers.execution import Execution
from wobbliness.perturbations.base import Scratch, Stream, TrainingPerturbation, image_keys
from wobbliness.runtime.progress import Progress, progress_bar
from wobbliness.runtime.threads import for_each
from wobbliness.sampling.checked_images import checked_images
from wobbliness.sampling.plan import EXAMPLES, MAX_COUNT, checked_integer
from wobbliness.sampling.votes import DrawSpan, Votes

Train = Callable[[Int[np.ndarray, " m"]], Any]


def measure_trainings(
    train: Train,
    labels: ArrayLike,
    images: Any,
    perturbation: TrainingPerturbation,
    draws: int = 250,
    seed: int = 0,
    *,
    num_classes: int | None = None,
    key: int | None = None,
    first_draw: int = 0,
    workers: int = 1,
    progress: Progress | None = None,
) -> Votes:
    """Counts the votes of classifiers that are trained on perturbed copies of the labels.

    The smoothing of Rosenfeld et al. (2020): a classifier is a draw, and is asked once for all
    images. `votes.wobbliness` is the entropy of the predictions over the trainings. With two
    classes, `certificates.label_flip_radius` says how many labels of the training set may be
    flipped by an adversary. The votes of an image depend on (train, labels, image, perturbation,
    draws, seed) alone.

    >>> from wobbliness.perturbations import LabelFlip
    >>> def majority(labels):
    ...     return lambda images: np.full(len(images), labels.mean() > 0.5, dtype=int)
    >>> votes = measure_trainings(majority, [1, 1, 1], [[0.5]], LabelFlip(0.5), draws=1000)
    >>> votes.probabilities.round(1).tolist()
    [[0.5, 0.5]]

    Args:
        train: takes labels `(m,)` and returns a classifier, as `measure` takes one; must be a
            function of the labels alone, its own random numbers of a fixed seed.
        labels: `(m,)` integers, 0 to K - 1, of the training set, in the order that `train` knows.
        images: `(N, ...)` floats in [0, 1], as for `measure`.
        perturbation: `LabelFlip(share)`.
        draws: number of trainings.
        seed: of the perturbation.
        num_classes: K; by default one more than the highest label, and at least 2.
        key: of the training set, a non-negative integer; by default a hash of the labels.
        first_draw: number of the first draw; with it, votes of further trainings can be added.
        workers: threads, each with trainings of its own; more than 1 where `train` may run several
            times side by side. Never changes the votes.
        progress: called with (trainings done, trainings in all), in place of a bar.

    Returns:
        Votes with counts `(N, K)`. Only those of the same labels and images can be added.

    Raises:
        ValueError: bad labels, images, draws or seed, another perturbation, or a classifier that
            does not answer as for `measure`.
    """
    first = checked_integer(first_draw, "a first draw", at_least=0, at_most=MAX_COUNT)
    there = checked_integer(draws, "draws", at_least=1, at_most=MAX_COUNT)
    task = _made_task(train, labels, images, perturbation, num_classes=num_classes, key=key)
    trainings = _Trainings(task, checked_integer(seed, "a seed", at_least=0), first)
    with progress_bar("training", there, report=progress) as advance:
        threads = checked_integer(workers, "workers", at_least=1, at_most=MAX_COUNT)
        for_each(trainings, there, workers=min(threads, there), advance=advance)
    return Votes(
        counts=trainings.counts,
        sigma=None,
        perturbation=perturbation.name,
        keys=task.vote_keys,
        spans=(DrawSpan(seed=trainings.seed, first=first, stop=first + there),),
        executions=trainings.executions,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Task:
    """Training and questions of a measurement over trainings, checked."""

    train: Train
    labels: Int[np.ndarray, " m"]
    images: Float32[np.ndarray, "N ..."]
    perturbation: TrainingPerturbation
    num_classes: int
    key: int
    is_tensor: bool

    @property
    def vote_keys(self) -> UInt64[np.ndarray, " N"]:
        """Keys that tell images and training sets apart, so that only equal ones add."""
        return image_keys(self.images) ^ np.uint64(self.key)


class _Trainings:
    """Trains on one copy at a time and counts the answers; for several threads."""

    def __init__(self, task: _Task, seed: int, first_draw: int) -> None:
        self._task, self.seed, self._first = task, seed, first_draw
        self.counts = np.zeros((len(task.images), task.num_classes), dtype=np.int64)
        self._executions: dict[int, Execution] = {}
        self._lock = threading.Lock()

    @property
    def executions(self) -> tuple[Execution, ...]:
        """Executions of the classifiers, each once, in the order of the draws."""
        return tuple(dict.fromkeys(made for _, made in sorted(self._executions.items())))

    def __call__(self, index: int) -> None:
        task = self._task
        stream = Stream(self.seed, task.key, first_draw=self._first + index, scratch=Scratch())
        (labels,) = task.perturbation.training_labels(stream, task.labels, 1, task.num_classes)
        answers, execution = _answers(task.train(labels), task)
        # Sums of integers: whichever training ends first, the counts are the same.
        with self._lock:
            self.counts[np.arange(len(answers)), answers] += 1
            self._executions[index] = execution


def _answers(classifier: Any, task: _Task) -> tuple[Int[np.ndarray, " N"], Execution]:
    """Returns the class of each image, and how the classifier was run."""
    # A graph of a module that answers once would take longer to compile than to ask.
    opened = open_classifier(
        classifier, num_classes=task.num_classes, as_tensor=task.is_tensor, compiled=False
    )
    with opened.session(task.images[:EXAMPLES]) as execution:
        answers = opened.classify(task.images, execution.block_size or len(task.images))
    return answers, execution


def _made_task(
    train: Train,
    labels: ArrayLike,
    images: Any,
    perturbation: TrainingPerturbation,
    *,
    num_classes: int | None,
    key: int | None,
) -> _Task:
    made: object = perturbation  # of a user, of any type
    if not isinstance(made, TrainingPerturbation) or isinstance(made, type):
        raise ValueError(
            f"expected a perturbation of training sets, as LabelFlip(0.1), got {made!r:.80}"
        )
    known = _checked_labels(labels, num_classes)
    by_labels = int(image_keys(known[None])[0])
    return _Task(
        train=train,
        labels=known,
        images=np.asarray(checked_images(images), dtype=np.float32),
        perturbation=perturbation,
        num_classes=num_classes or max(2, int(known.max()) + 1),
        key=by_labels if key is None else _checked_key(key),
        is_tensor=hasattr(images, "detach"),
    )


def _checked_key(key: int) -> int:
    return checked_integer(key, "a key", at_least=0, at_most=2**64 - 1)


def _checked_labels(labels: ArrayLike, num_classes: int | None) -> Int[np.ndarray, " m"]:
    array = np.asarray(labels)
    if num_classes is not None:
        checked_integer(num_classes, "a number of classes", at_least=2, at_most=MAX_COUNT)
    if array.ndim != 1 or len(array) == 0 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"expected integer labels (m,), at least one, got {array.dtype} of shape {array.shape}"
        )
    if array.min() < 0 or array.max() >= (num_classes or MAX_COUNT):
        raise ValueError(
            f"expected labels from 0 to {(num_classes or MAX_COUNT) - 1}, got {array.min()} to "
            f"{array.max()}"
        )
    return array.astype(np.int64)
