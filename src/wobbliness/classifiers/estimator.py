"""A fitted classifier of scikit-learn, or of a library that follows its conventions, as a classifier."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from jaxtyping import Float32, Int

from wobbliness.classifiers.base import ScoredClassifier, in_blocks
from wobbliness.execution import Execution


class EstimatorClassifier(ScoredClassifier):
    """An estimator with `predict_proba` or else `predict`; images are flattened, and class k is `classes_[k]`."""

    thread_safe = False

    def __init__(self, estimator: Any, *, num_classes: int | None = None) -> None:
        """Wraps an estimator.

        Raises:
            ValueError: it is not fitted, is no classifier of one answer, or has another number of classes.
        """
        from sklearn.base import is_classifier
        from sklearn.exceptions import NotFittedError
        from sklearn.utils.validation import check_is_fitted

        name = type(estimator).__name__
        try:
            check_is_fitted(estimator)
        except (NotFittedError, TypeError) as error:
            raise ValueError(f"expected a fitted classifier, got {name}: {error}") from error
        if not is_classifier(estimator) or isinstance(getattr(estimator, "classes_", None), list | None):
            raise ValueError(f"expected a classifier that names one class, got {name}")
        self._estimator, self._classes = estimator, np.asarray(estimator.classes_)
        if num_classes not in (None, len(self._classes)):
            raise ValueError(f"expected a classifier of {num_classes} classes, got one of {len(self._classes)}")
        self.num_classes = len(self._classes)

    def classify(self, images: Float32[np.ndarray, "B ..."], block_size: int) -> Int[np.ndarray, " B"]:
        """The class of each image.

        Raises:
            ValueError: the estimator refuses images of this size.
        """
        return np.asarray(in_blocks(self._classify_block, images, block_size))

    @contextmanager
    def session(self, examples: Float32[np.ndarray, "B ..."]) -> Iterator[Execution]:  # noqa: ARG002
        """Nothing to prepare."""
        yield Execution(backend="callable")

    def _classify_block(self, images: np.ndarray) -> np.ndarray:
        rows = images.reshape(len(images), -1).copy()
        if hasattr(self._estimator, "predict_proba"):
            return self.labels_of(self._estimator.predict_proba(rows), len(images))
        return self.labels_of(np.searchsorted(self._classes, self._estimator.predict(rows)), len(images))
