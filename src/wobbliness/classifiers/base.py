"""The classifier protocol, and the validation of a classifier's answers."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int, Shaped

from wobbliness.classifiers.execution import Execution
from wobbliness.runtime.threads import check_stopped

# Scores of a batch from which integers are taken for labels, whose least is below LARGE_LABEL.
FEW_LABELS, LARGE_LABEL = 8, 128
# A label beyond it is taken for a mistake, not for a class.
MAX_UNDECLARED_CLASSES = 100_000
ONE_SCORE = (
    "expected integer labels or scores (B, K), got one float for each image; where it is a label, "
    "give an integer; where it is a score for two classes, give the threshold above which it says "
    "class 1 (threshold=, --threshold: 0.5 for probabilities, 0 for logits)"
)

FLOAT_LABELS = (
    "expected integer labels or scores (B, K), got one float for each image, all whole numbers "
    "from 0 to {}; where these are labels, convert them to integers (.astype(int), .long())"
)

RANKS = (
    "expected labels or scores, got integers of {} columns that look like the numbers of the best "
    "classes; give the first column where they are, or scores as floats"
)


class NoClassesError(ValueError):
    """An error for answers that are neither labels nor scores at any block size."""


@runtime_checkable
class Classifier(Protocol):
    """A model that predicts a class for each image of a batch.

    Attributes:
        num_classes: K, or None where it is not known: before the first scores, or where only labels
            are given.
        thread_safe: whether `classify` may run in several threads at a time.
        image_shape: of one image as the user hands it over, channels first `(C, H, W)`; None inside
            where any size goes, None where the classifier does not declare it.
    """

    num_classes: int | None
    thread_safe: bool
    image_shape: tuple[int | None, ...] | None

    def classify(
        self, images: Float32[np.ndarray, "B ..."], block_size: int
    ) -> Int[np.ndarray, " B"]:
        """Returns the predicted classes, 0 to K - 1.

        The images are classified in blocks of `block_size` and a remainder.
        """
        ...

    def session(self, examples: Float32[np.ndarray, "B ..."]) -> AbstractContextManager[Execution]:
        """Prepares all calls of a measurement: evaluation mode, threads, compilation.

        Args:
            examples: some of the images that will be classified, to prepare with and to check the
                preparation on.
        """
        ...


@runtime_checkable
class DeviceClassifier(Protocol):
    """A classifier that scores tensors on a device of its own.

    Attributes:
        num_classes: K, or None before the first scores.
        is_reduced: whether it runs at a lower precision than float32.
    """

    num_classes: int | None
    is_reduced: bool

    def made_ready(self) -> AbstractContextManager[None]:
        """Sets evaluation mode and exact float32 around `device_scores`, and restores both."""
        ...

    def on_device(self, images: np.ndarray) -> Any:
        """Returns a copy of images as a float32 tensor on the device."""
        ...

    def device_scores(self, batch: Any, *, exact: bool) -> Any:
        """Returns scores `(B, K)` of a batch that is on the device.

        Args:
            batch: float32 tensor `(B, ...)`.
            exact: whether to run it in float32, whatever precision is asked for.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Twin:
    """A classifier in low precision.

    Attributes:
        classifier: answers as the one it was made of, but for the error of quantisation.
        relative_cost: estimate of the time of a pass over that of a float32 pass.
    """

    classifier: Any
    relative_cost: float


@runtime_checkable
class QuantisableClassifier(Protocol):
    """A classifier whose graph can be quantised.

    Attributes:
        keeps_network: whether the graph is kept for `twin`; to be set before `session`.
    """

    keeps_network: bool

    def twin(self, images: Float32[np.ndarray, "B ..."]) -> Twin:
        """Returns the quantised twin, within a session.

        Args:
            images: whose activations set the ranges of the integers.

        Raises:
            ValueError: there is no graph of float32 scores, or it cannot be quantised.
        """
        ...


@runtime_checkable
class WhiteBox(Protocol):
    """A classifier whose network can be differentiated.

    Attributes:
        module: a `torch.nn.Module` that gives logits `(B, K)`.
    """

    module: Any


def _are_ranks(scores: np.ndarray) -> bool:
    """Checks whether rows of integers are indices of the best classes, not counts or one-hot.

    Top-k and argsort give such indices. They differ within each row. Votes of a few voters, in
    contrast, add up to the same number in each row.
    """
    # Integers of 8 or 16 bits are quantised scores.
    if scores.dtype.kind not in "iu" or scores.dtype.itemsize < 4:
        return False
    if scores.min() < 0 or scores.max() >= MAX_UNDECLARED_CLASSES:
        return False
    # Indices are distinct within each row. Distinct integers of equal sums may be votes, unless
    # each row is a permutation of all classes.
    ordered, sums = np.sort(scores, axis=1), scores.sum(axis=1)
    if len(scores) < 2 or scores.max() <= 1 or (ordered[:, 1:] == ordered[:, :-1]).any():
        return False
    return bool((sums != sums[0]).any() or (ordered == np.arange(scores.shape[1])).all())


def check_no_labels(scores: Shaped[np.ndarray, " B"]) -> None:
    """Raises NoClassesError where the single score of each image is in fact a label.

    A threshold would merge all labels into two classes. Several scores are needed to decide: one
    may be an integer by chance, and all large scores of 16 bits are integers.
    """
    if len(scores) < FEW_LABELS or not 0 <= scores.min() < LARGE_LABEL or scores.max() < 2:
        return
    if (scores == np.rint(scores)).all():
        raise NoClassesError(FLOAT_LABELS.format(f"{scores.max():g}"))


def in_blocks(
    function: Callable[[np.ndarray], Any], images: Shaped[np.ndarray, "B ..."], block_size: int
) -> Any:
    """Applies a function to blocks of images and concatenates its answers."""
    if len(images) <= block_size:
        return function(images)
    # Between blocks a worker looks whether another one has failed.
    answers = []
    for first in range(0, len(images), block_size):
        check_stopped()
        answers.append(function(images[first : first + block_size]))
    return np.concatenate(answers)


def as_array(answer: Any) -> np.ndarray:
    """Converts an answer to an array; types that numpy lacks, such as bfloat16, become float32."""
    if not hasattr(answer, "detach"):
        return np.asarray(answer)
    # Conjugates and negatives may be flags on the same memory, which numpy does not know.
    tensor = answer.detach().cpu().resolve_conj().resolve_neg()
    try:
        return np.asarray(tensor)
    except TypeError:
        return np.asarray(tensor.float())


class ScoredClassifier:
    """A base of the adapters: labels from answers, and K from the first scores if undeclared.

    Attributes:
        threshold: of class 1 in one score for two classes, as the user gives it.
        declared_threshold: of class 1, as the classifier itself declares it.
        takes_integers: whether the model gets token ids, as 64-bit integers.
    """

    num_classes: int | None
    takes_integers: bool = False
    image_shape: tuple[int | None, ...] | None = None
    threshold: float | None = None
    declared_threshold: float | None = None

    def preprocessing(self) -> dict[str, str]:
        """Describes what is done to images and answers around the model itself, for comparisons.

        The result has one text for each kind of step. A kind without effect is left out, so that it
        does not matter whether it was given or inferred.
        """
        threshold = self.class_threshold
        return {} if threshold is None else {"threshold": f"{threshold:g}"}

    @property
    def class_threshold(self) -> float | None:
        """Threshold of class 1 in one score, the user's before the declared one."""
        return self.declared_threshold if self.threshold is None else self.threshold

    def take_integers(self) -> None:
        """Hands inputs over as integers from now on: they are token ids.

        Raises:
            ValueError: their values would be changed before, as those of pixels are.
        """
        if pixels := self.preprocessing().get("pixels"):
            raise ValueError(f"expected token ids as they are, got the input range {pixels}")
        self.takes_integers = True

    def as_input(self, images: Float32[np.ndarray, "B ..."]) -> Shaped[np.ndarray, "B ..."]:
        """Returns images in the type that the model gets them in."""
        return images.astype(np.int64) if self.takes_integers else images

    def labels_of(self, answer: Any, num_images: int) -> Int[np.ndarray, " B"]:
        """Returns labels `(B,)` as they are and scores `(B, K)` by their arg-max (Eq. 1).

        One score for each image, `(B,)` or `(B, 1)` floats, gives class 1 above the threshold, else
        class 0. Axes of length 1 behind the first do not count: `(B, K, 1, 1)` are scores.

        Raises:
            ValueError: another number of rows or rank, NaN scores, labels that are no integers or
                out of range, one score without a threshold, or more with one.
        """
        array = as_array(answer)
        sizes = [size for size in array.shape[1:] if size != 1]
        if array.ndim < 1 or len(sizes) > 1 or len(array) != num_images:
            raise ValueError(
                f"expected the classifier to give labels ({num_images},) or scores ({num_images}, "
                f"K), got shape {array.shape}"
            )
        if sizes:
            return self._labels_of_scores(array.reshape(num_images, sizes[0]))
        # One value for each image: floats are scores, whole numbers are labels.
        if np.issubdtype(array.dtype, np.floating):
            return self._labels_of_one_score(array.ravel())
        return self._checked_labels(array.ravel())

    def _labels_of_scores(self, scores: np.ndarray) -> Int[np.ndarray, " B"]:
        if scores.shape[1] < 2 or self.num_classes not in (None, scores.shape[1]):
            raise ValueError(
                f"expected scores of {self.num_classes or 'at least 2'} classes, got "
                f"{scores.shape[1]}"
            )
        scores = scores.astype(np.uint8) if scores.dtype == bool else scores
        is_real = np.issubdtype(scores.dtype, np.number) and not np.iscomplexobj(scores)
        if not is_real or np.isnan(scores).any():
            raise ValueError(f"expected scores that are numbers, got NaN or {scores.dtype}")
        if _are_ranks(scores):
            raise NoClassesError(RANKS.format(scores.shape[1]))
        self._refuse_threshold(f"scores of {scores.shape[1]} classes")
        self.num_classes = scores.shape[1]
        return np.asarray(scores.argmax(axis=1))

    def _labels_of_one_score(self, scores: np.ndarray) -> Int[np.ndarray, " B"]:
        threshold = self.class_threshold
        check_no_labels(scores)
        if threshold is None:
            raise NoClassesError(ONE_SCORE)
        if self.num_classes not in (None, 2):
            raise ValueError(
                f"expected scores of {self.num_classes} classes, got one for each image"
            )
        if np.isnan(scores).any():
            raise ValueError("expected scores that are numbers, got NaN")
        self.num_classes = 2
        return np.asarray((scores > threshold).astype(np.int64))

    def _checked_labels(self, labels: np.ndarray) -> Int[np.ndarray, " B"]:
        if labels.dtype != bool and not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"expected integer labels, got {labels.dtype}")
        self._refuse_threshold("labels")
        limit = self.num_classes or MAX_UNDECLARED_CLASSES
        if labels.min() < 0 or labels.max() >= limit:
            raise ValueError(
                f"expected labels from 0 to {limit - 1}, got {labels.min()} to {labels.max()}"
            )
        return np.asarray(labels.astype(np.int64))

    def _refuse_threshold(self, found: str) -> None:
        if self.threshold is not None:
            raise ValueError(f"expected one score for each image with a threshold, got {found}")
