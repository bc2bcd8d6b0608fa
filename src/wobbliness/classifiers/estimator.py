"""A fitted classifier of scikit-learn, or of a library that follows its conventions."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from jaxtyping import Float32, Int

from wobbliness.classifiers.base import ScoredClassifier, in_blocks
from wobbliness.classifiers.execution import Execution
from wobbliness.classifiers.signature.layouts import Layout
from wobbliness.classifiers.signature.pixel_scale import PixelScale, described_scale
from wobbliness.runtime.errors import reason_of

Arrangement = Callable[[np.ndarray], np.ndarray]


class EstimatorClassifier(ScoredClassifier):
    """A classifier that predicts with an estimator's `predict`: class k is `classes_[k]`.

    It gets images as it was fitted on: flattened, from channels first or last; or as pictures,
    where it was fitted on those, as a pipeline may be that begins with features of pictures.
    """

    thread_safe = False

    def __init__(
        self,
        estimator: Any,
        *,
        num_classes: int | None = None,
        layout: Layout | None = None,
        scale: PixelScale | None = None,
    ) -> None:
        """Wraps an estimator.

        Args:
            estimator: fitted.
            num_classes: K, to be checked against its classes.
            layout: of the pictures that it was fitted on, or that were flattened for it; channels
                first by default.
            scale: the pixel values that it was fitted on.

        Raises:
            ValueError: it is not fitted, is no classifier of one answer, or has another number of
                classes.
        """
        _check_fitted(estimator)
        self._estimator, self._classes = estimator, _single_classes(estimator)
        if num_classes not in (None, len(self._classes)):
            raise ValueError(
                f"expected a classifier of {num_classes} classes, got one of {len(self._classes)}"
            )
        self.num_classes = len(self._classes)
        # Of classes in any order, for a binary search.
        self._order = np.argsort(self._classes)
        self._layout, self._scale = layout, scale
        self._arrange: tuple[tuple[int, ...], Arrangement] | None = None

    def preprocessing(self) -> dict[str, str]:
        """Describes the steps around the estimator, including pixel values and layout."""
        return (
            super().preprocessing()
            | described_scale(self._scale)
            | ({"layout": "nhwc"} if self._layout == "nhwc" else {})
        )

    def classify(
        self, images: Float32[np.ndarray, "B ..."], block_size: int
    ) -> Int[np.ndarray, " B"]:
        """Returns the predicted class of each image.

        Raises:
            ValueError: the estimator refuses images of this size, or gives more than one answer for
                each.
        """
        return np.asarray(in_blocks(self._classify_block, images, block_size))

    @contextmanager
    def session(
        self,
        examples: Float32[np.ndarray, "B ..."],  # noqa: ARG002
    ) -> Iterator[Execution]:
        """Prepares nothing: an estimator is ready when it is fitted."""
        yield Execution(backend="callable", threads="one calling thread")

    def _classify_block(self, images: np.ndarray) -> np.ndarray:
        images = self.as_input(images if self._scale is None else self._scale.apply(images))
        shape = images.shape[1:]
        # Found once for all blocks of a shape: trying costs predictions.
        if self._arrange is None or self._arrange[0] != shape:
            self._arrange = shape, self._found_arrangement(images)
        answer = self._estimator.predict(self._arrange[1](images))
        return self._numbers(np.asarray(answer), len(images))

    def _numbers(self, answer: np.ndarray, num_images: int) -> np.ndarray:
        """Returns the indices of the answers in `classes_`."""
        if answer.size != num_images:
            raise ValueError(
                f"expected one class for each of {num_images} images, got an answer of shape "
                f"{answer.shape}"
            )
        answer, last = answer.ravel(), len(self._classes) - 1
        # The place where each answer would be inserted: that of its class, if it is one.
        places = np.searchsorted(self._classes, answer, sorter=self._order).clip(max=last)
        numbers = self._order[places]
        if not (self._classes[numbers] == answer).all():
            raise ValueError(
                f"expected a prediction among the classes {self._classes[:5]} ..., got others"
            )
        return self.labels_of(numbers, num_images)

    def _found_arrangement(self, images: np.ndarray) -> Arrangement:
        """Finds how the estimator takes images of this shape.

        Its number of features decides: that of a whole image, or the length of the axis after the
        batch's. Without one, rows are tried and then pictures, and the first form that it does not
        refuse is taken.
        """
        features = getattr(self._estimator, "n_features_in_", None)
        rows, *pictures = _arrangements(images.shape[1:], self._layout)
        if features is None:
            return self._first_accepted([rows, *pictures], images[:1]) or rows
        if features == images[0].size:
            return rows
        fitting = [arrange for arrange in pictures if arrange(images[:1]).shape[1] == features]
        return self._first_accepted(fitting, images[:1]) or rows

    def _first_accepted(
        self, arrangements: Sequence[Arrangement], image: np.ndarray
    ) -> Arrangement | None:
        accepted = (arrange for arrange in arrangements if self._accepts(arrange(image)))
        return next(accepted, None)

    def _accepts(self, image: np.ndarray) -> bool:
        try:
            self._estimator.predict(image)
        # An estimator of others may raise anything; the user reads what it says of rows.
        except Exception:
            return False
        return True


def _check_fitted(estimator: Any) -> None:
    from sklearn.base import is_classifier, is_outlier_detector
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    name = type(estimator).__name__
    try:
        check_is_fitted(estimator)
    except (NotFittedError, TypeError) as error:
        raise ValueError(f"expected a fitted classifier, got {name}: {reason_of(error)}") from error
    if is_outlier_detector(estimator):
        raise ValueError(
            f"expected a classifier that names one class, got the outlier detector {name}"
        )
    has_classes = getattr(estimator, "classes_", None) is not None
    if not is_classifier(estimator) or not has_classes or not hasattr(estimator, "predict"):
        raise ValueError(f"expected a classifier that names one class, got {name}")


def _single_classes(estimator: Any) -> np.ndarray:
    """Returns the classes of a fitted classifier; ValueError where it gives several answers."""
    classes = estimator.classes_
    # A list of classes for each answer, or a flag of those that have one list for all.
    flags = ("multilabel_", "outputs_2d_")
    has_several = any(getattr(estimator, flag, False) is True for flag in flags)
    if isinstance(classes, list) or has_several:
        raise ValueError(
            "expected a classifier that names one class for each image, got several answers of "
            f"{type(estimator).__name__}"
        )
    return np.asarray(classes)


def _arrangements(shape: tuple[int, ...], layout: Layout | None) -> list[Arrangement]:
    """Returns the ways to pass images of a shape: as rows, then as pictures.

    Pictures are passed in the declared layout, or else channels first before channels last.
    """
    if len(shape) != 3:
        return [_rows, np.ndarray.copy]
    first: list[Arrangement] = [np.ndarray.copy]
    last: list[Arrangement] = [_channels_last]
    grey: list[Arrangement] = [_grey] if shape[0] == 1 else []
    if layout == "nhwc":
        return [_rows_channels_last, *last, *grey]
    return [_rows, *first, *(last if layout is None else []), *grey]


# Copies: an estimator may keep or change what it gets, and the memory of images is used again.
def _rows(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).copy()


def _channels_last(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1))


def _rows_channels_last(images: np.ndarray) -> np.ndarray:
    return _channels_last(images).reshape(len(images), -1)


def _grey(images: np.ndarray) -> np.ndarray:
    return images[:, 0].copy()
