"""Any callable as a classifier."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from jaxtyping import Float32, Int

from wobbliness.classifiers.base import ScoredClassifier


class FunctionClassifier(ScoredClassifier):
    """A callable from a batch to labels `(B,)` or scores `(B, K)`.

    It gets numpy arrays; or tensors, without gradients, where the images of the measurement were tensors.
    """

    thread_safe = False

    def __init__(self, function: Callable[[Any], Any], *, num_classes: int | None, as_tensor: bool) -> None:
        self.num_classes = num_classes
        self._function = function
        self._as_tensor = as_tensor

    def classify(self, images: Float32[np.ndarray, "B ..."]) -> Int[np.ndarray, " B"]:
        """The class of each image, checked."""
        answer = self._call_with_tensor(images) if self._as_tensor else self._function(images)
        return self.labels_of(answer, len(images))

    def session(self) -> AbstractContextManager[object]:
        """Nothing to prepare."""
        return nullcontext()

    def _call_with_tensor(self, images: np.ndarray) -> Any:
        import torch

        with torch.inference_mode():
            return self._function(torch.from_numpy(images))
