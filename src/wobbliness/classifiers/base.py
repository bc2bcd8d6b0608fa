"""What a classifier has to do, and the check of what it answers."""

from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int

MAX_UNDECLARED_CLASSES = 100_000  # a label beyond it is taken for a mistake, not for a class


@runtime_checkable
class Classifier(Protocol):
    """Names a class for each image of a batch.

    Attributes:
        num_classes: K, or None where only labels are given and K is not known.
        thread_safe: whether `classify` may run in several threads at once.
    """

    num_classes: int | None
    thread_safe: bool

    def classify(self, images: Float32[np.ndarray, "B ..."]) -> Int[np.ndarray, " B"]:
        """The class of each image, 0 to K - 1."""
        ...

    def session(self) -> AbstractContextManager[object]:
        """Entered once around all calls of a measurement: evaluation mode, threads."""
        ...


def checked_labels(answer: Any, num_images: int, num_classes: int | None) -> Int[np.ndarray, " B"]:
    """Labels from what a classifier answered: labels `(B,)` as they are, scores `(B, K)` by their arg-max (Eq. 1).

    Raises:
        ValueError: another number of rows or rank, NaN scores, labels that are no integers or out of range.
    """
    array = np.asarray(answer.detach().cpu() if hasattr(answer, "detach") else answer)
    if array.ndim not in (1, 2) or len(array) != num_images:
        raise ValueError(
            f"expected the classifier to give labels ({num_images},) or scores ({num_images}, K), got shape {array.shape}"
        )
    if array.ndim == 2:
        return _labels_of_scores(array, num_classes)
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"expected integer labels, got {array.dtype}")
    limit = num_classes or MAX_UNDECLARED_CLASSES
    if array.min() < 0 or array.max() >= limit:
        raise ValueError(f"expected labels from 0 to {limit - 1}, got {array.min()} to {array.max()}")
    return array


def _labels_of_scores(scores: np.ndarray, num_classes: int | None) -> Int[np.ndarray, " B"]:
    if scores.shape[1] < 2 or (num_classes is not None and scores.shape[1] != num_classes):
        wanted = num_classes or "at least 2"
        raise ValueError(f"expected scores of {wanted} classes, got {scores.shape[1]}")
    if np.isnan(scores).any():
        raise ValueError("expected scores that are numbers, got NaN")
    return np.asarray(scores.argmax(axis=1))
