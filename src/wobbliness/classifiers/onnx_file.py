"""An ONNX file as a classifier."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int

from wobbliness.classifiers.base import ScoredClassifier
from wobbliness.classifiers.onnx_graph import OnnxGraph
from wobbliness.execution import Execution


class OnnxClassifier(ScoredClassifier):
    """The first output of an ONNX graph: scores `(B, K)` or integer labels `(B,)`.

    Opening the file runs no code of its author's. Each call runs on one core.
    """

    thread_safe = True

    def __init__(self, path: str | Path, *, num_classes: int | None = None) -> None:
        self.num_classes = num_classes
        self._graph = OnnxGraph(Path(path))

    def classify(self, images: Float32[np.ndarray, "B ..."], block_size: int) -> Int[np.ndarray, " B"]:
        """The class of each image.

        Raises:
            ValueError: the graph declares another shape of input, or answers neither labels nor scores.
        """
        return self.labels_of(self._graph.run(images, block_size), len(images))

    @contextmanager
    def session(self, examples: Float32[np.ndarray, "B ..."]) -> Iterator[Execution]:  # noqa: ARG002
        """Nothing to prepare."""
        yield Execution(backend="onnxruntime", values_per_image=self._graph.values_per_image())
