"""Any callable as a classifier."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from jaxtyping import Float32, Int

from wobbliness.classifiers.base import ScoredClassifier, as_array, in_blocks
from wobbliness.classifiers.execution import Execution
from wobbliness.classifiers.signature.pixel_scale import PixelScale, described_scale

CALLING_THREAD = "one calling thread"


class FunctionClassifier(ScoredClassifier):
    """A classifier around a callable that gives labels `(B,)` or scores `(B, K)` for a batch.

    It gets numpy arrays; or tensors, without gradients, where the images of the measurement were
    tensors.
    """

    thread_safe = False

    def __init__(
        self,
        function: Callable[[Any], Any],
        *,
        num_classes: int | None,
        as_tensor: bool,
        scale: PixelScale | None = None,
    ) -> None:
        self.num_classes, self._scale = num_classes, scale
        self._function = function
        self._as_tensor = as_tensor

    def preprocessing(self) -> dict[str, str]:
        """Describes the steps around the callable, including pixel values."""
        return super().preprocessing() | described_scale(self._scale)

    def classify(
        self, images: Float32[np.ndarray, "B ..."], block_size: int
    ) -> Int[np.ndarray, " B"]:
        """Returns the predicted class of each image, validated."""
        return np.asarray(in_blocks(self._classify_block, images, block_size))

    def answers(self, images: Float32[np.ndarray, "B ..."], block_size: int) -> np.ndarray:
        """Returns the callable's answers before a class is chosen, validated."""
        return np.asarray(in_blocks(self._checked_answer, images, block_size))

    @contextmanager
    def session(
        self,
        examples: Float32[np.ndarray, "B ..."],  # noqa: ARG002
    ) -> Iterator[Execution]:
        """Prepares nothing: a callable is taken as it is."""
        yield Execution(backend="callable", threads=CALLING_THREAD)

    def _classify_block(self, images: np.ndarray) -> np.ndarray:
        return self.labels_of(self._answer(images), len(images))

    def _checked_answer(self, images: np.ndarray) -> np.ndarray:
        answer = self._answer(images)
        self.labels_of(answer, len(images))
        return as_array(answer)

    def _answer(self, images: np.ndarray) -> Any:
        images = images if self._scale is None else self._scale.apply(images)
        # a function may keep what it is given, and the memory of `images` is used again
        own = self.as_input(images.copy())
        return self._call_with_tensor(own) if self._as_tensor else self._function(own)

    def _call_with_tensor(self, images: np.ndarray) -> Any:
        import torch

        with torch.inference_mode():
            return self._function(torch.from_numpy(images))
