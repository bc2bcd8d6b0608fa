"""Classifiers whose networks are perturbed by gates, which come with each image."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int, Shaped

from wobbliness.classifiers.base import Classifier, ScoredClassifier
from wobbliness.classifiers.execution import Execution
from wobbliness.perturbations.network.gated_nodes import GatedNodes


@dataclass(frozen=True, kw_only=True)
class Gated:
    """A classifier of rows `(B, R)`: the values of an image, flat, and its gates behind them.

    With gates of 1 it is the classifier that it was made from.

    Attributes:
        classifier: of the rows.
        num_gates: in each row.
    """

    classifier: Classifier
    num_gates: int


@runtime_checkable
class GateableClassifier(Protocol):
    """A classifier whose graph is known."""

    def gated(self, nodes: GatedNodes, images: Float32[np.ndarray, "B ..."]) -> Gated:
        """Returns the classifier of rows.

        Args:
            nodes: which nodes get a gate.
            images: some of those that will be classified.

        Raises:
            ValueError: the network has none, or too few, of these nodes, or has no graph.
        """
        ...


class GatedModule(ScoredClassifier):
    """The graph of a torch module with gates."""

    # A session of ONNX Runtime may be run by several threads at once.
    thread_safe = True

    def __init__(
        self, graph: Any, *, num_classes: int | None, values_per_image: int | None
    ) -> None:
        """Wraps a graph.

        Args:
            graph: an OnnxGraph that takes rows.
            num_classes: K, to be checked against the scores.
            values_per_image: in the input and output of the network's largest step.
        """
        self.num_classes = num_classes
        self._graph, self._values_per_image = graph, values_per_image

    def classify(
        self, images: Float32[np.ndarray, "B R"], block_size: int
    ) -> Int[np.ndarray, " B"]:
        """Returns the predicted class of each row."""
        return self.labels_of(self.answers(images, block_size), len(images))

    def answers(
        self, images: Float32[np.ndarray, "B R"], block_size: int
    ) -> Shaped[np.ndarray, "B ..."]:
        """Returns the graph's scores of each row."""
        scores: np.ndarray = self._graph.run(images, block_size)
        return scores

    @contextmanager
    def session(
        self,
        examples: Float32[np.ndarray, "B ..."],  # noqa: ARG002
    ) -> Iterator[Execution]:
        """Prepares nothing: the graph is compiled already."""
        yield Execution(backend="onnxruntime", values_per_image=self._values_per_image)
