"""An ONNX file as a classifier."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int

from wobbliness.classifiers.base import ScoredClassifier
from wobbliness.classifiers.layouts import Layout
from wobbliness.classifiers.onnx_graph import OnnxGraph
from wobbliness.execution import Execution


class OnnxClassifier(ScoredClassifier):
    """The first output of an ONNX graph: scores `(B, K)` or integer labels `(B,)` or `(B, 1)`.

    Opening the file runs no code of its author's. Images are handed over channels first whatever the graph's own layout; a graph
    of flat features `(B, F)` gets them flattened. Each call runs on one core, in blocks of the size that the graph fixes, if any.
    """

    thread_safe = True

    def __init__(self, path: str | Path, *, num_classes: int | None = None, layout: Layout | None = None) -> None:
        self.num_classes = num_classes
        self._graph = OnnxGraph(Path(path), layout=layout)
        self.image_shape = self._graph.image_shape

    def classify(self, images: Float32[np.ndarray, "B ..."], block_size: int) -> Int[np.ndarray, " B"]:
        """The class of each image.

        Raises:
            ValueError: the graph declares another shape of input, or answers neither labels nor scores.
        """
        answer = self._graph.run(images, block_size)
        if answer.ndim == 2 and answer.shape[1] == 1 and np.issubdtype(answer.dtype, np.integer):
            answer = answer[:, 0]
        return self.labels_of(answer, len(images))

    @contextmanager
    def session(self, examples: Float32[np.ndarray, "B ..."]) -> Iterator[Execution]:  # noqa: ARG002
        """Nothing to prepare."""
        graph = self._graph
        yield Execution(backend="onnxruntime", values_per_image=graph.values_per_image(), block_size=graph.batch_size)
