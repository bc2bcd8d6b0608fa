"""An ONNX file as a classifier."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int

from wobbliness.classifiers.base import MAX_UNDECLARED_CLASSES, ScoredClassifier, Twin
from wobbliness.classifiers.compile.graph import GraphOptions, OnnxGraph
from wobbliness.classifiers.execution import Execution
from wobbliness.classifiers.gated import Gated
from wobbliness.classifiers.signature.onnx_answers import label_numbers
from wobbliness.perturbations.network.gated_nodes import GatedNodes


class OnnxClassifier(ScoredClassifier):
    """An output of an ONNX graph: scores `(B, K)`, one score for two classes, or labels `(B,)`.

    Labels may also be `(B, 1)`.

    Opening the file runs no code of its author's. Images are handed over channels first whatever
    the graph's own layout; a graph of flat features `(B, F)` gets them flattened. Each call runs on
    one core, in blocks of the size that the graph fixes, if any.
    """

    thread_safe = True
    # The file itself keeps the network.
    keeps_network = False

    def __init__(
        self,
        path: str | Path,
        *,
        num_classes: int | None = None,
        threshold: float | None = None,
        **options: Any,
    ) -> None:
        """Opens a file.

        Args:
            path: of the file.
            num_classes: K, to be checked against the scores.
            threshold: where class 1 begins in one score for two classes.
            **options: fields of GraphOptions.

        Raises:
            ValueError: as for OnnxGraph.
        """
        self.num_classes = num_classes
        self.source = Path(path)
        self._graph = OnnxGraph(
            self.source, options=GraphOptions(num_classes=num_classes, **options)
        )
        self.threshold, self.declared_threshold = threshold, self._graph.threshold
        self.image_shape = self._graph.image_shape

    def preprocessing(self) -> dict[str, str]:
        """Describes the steps around the graph: pixel values, layout and output."""
        return super().preprocessing() | self._graph.preprocessing()

    def gated(self, nodes: GatedNodes, images: Float32[np.ndarray, "B ..."]) -> Gated:
        """Returns the classifier of rows of image values and gates.

        Raises:
            ValueError: as for `OnnxGraph.gated`.
        """
        gated = copy(self)
        gated._graph, num_gates = self._graph.gated(nodes, images)
        gated.image_shape = None
        return Gated(classifier=gated, num_gates=num_gates)

    def twin(self, images: Float32[np.ndarray, "B ..."]) -> Twin:
        """Returns the quantised twin.

        Raises:
            ValueError: as for `OnnxGraph.quantised`.
        """
        twin = copy(self)
        twin._graph, cost = self._graph.quantised(self.as_input(images))
        return Twin(classifier=twin, relative_cost=cost)

    def classify(
        self, images: Float32[np.ndarray, "B ..."], block_size: int
    ) -> Int[np.ndarray, " B"]:
        """Returns the predicted class of each image.

        Raises:
            ValueError: the graph declares another shape of input, or answers neither labels nor
                scores.
        """
        return self.labels_of(self.answers(images, block_size), len(images))

    def answers(self, images: Float32[np.ndarray, "B ..."], block_size: int) -> np.ndarray:
        """Returns the graph's answers before a class is chosen; labels as class indices.

        Raises:
            ValueError: the graph declares another shape of input.
        """
        answer, classes = self._graph.run(images, block_size), self._graph.classes
        return answer if classes is None else self._numbers(answer, classes)

    def _numbers(self, labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Converts labels to class indices.

        K is the length of the graph's list of classes where the labels are places in it.
        """
        # Labels that are class indices already come back as the same object.
        numbers = label_numbers(labels, classes, self.num_classes or MAX_UNDECLARED_CLASSES)
        if numbers is not labels:
            self.num_classes = self.num_classes or len(classes)
        return numbers

    @contextmanager
    def session(
        self,
        examples: Float32[np.ndarray, "B ..."],  # noqa: ARG002
    ) -> Iterator[Execution]:
        """Prepares nothing: the graph is open already."""
        graph = self._graph
        values = graph.values_per_image()
        yield Execution(
            backend="onnxruntime",
            reason=graph.rounding,
            values_per_image=values,
            block_size=graph.batch_size,
        )
