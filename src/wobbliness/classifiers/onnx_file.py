"""An ONNX file as a classifier, run by ONNX Runtime."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import onnxruntime
from jaxtyping import Float32, Int

from wobbliness.classifiers.base import ScoredClassifier

FLOAT_TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}


class OnnxClassifier(ScoredClassifier):
    """The first output of an ONNX graph: scores `(B, K)` or integer labels `(B,)`.

    Opening the file runs no code of its author's: a graph holds operators and numbers only. Each call runs on one core.
    """

    thread_safe = True

    def __init__(self, path: str | Path, *, num_classes: int | None = None) -> None:
        self.num_classes = num_classes
        self._session = _open_session(Path(path))
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type not in FLOAT_TYPES:
            found = ", ".join(f"{node.name}: {node.type}" for node in inputs)
            raise ValueError(f"expected a graph with one float input, got {found or 'none'} in {path}")
        self._input = inputs[0]
        self._dtype = FLOAT_TYPES[inputs[0].type]
        self._output = self._session.get_outputs()[0].name

    def classify(self, images: Float32[np.ndarray, "B ..."]) -> Int[np.ndarray, " B"]:
        """The class of each image.

        Raises:
            ValueError: the graph declares another shape of input, or answers neither labels nor scores.
        """
        declared = self._input.shape
        fits = len(declared) == images.ndim and all(
            not isinstance(size, int) or size == got for size, got in zip(declared, images.shape, strict=True)
        )
        if not fits:
            raise ValueError(f"expected images of shape {declared}, as the graph declares, got {images.shape}")
        try:
            (answer,) = self._session.run([self._output], {self._input.name: images.astype(self._dtype, copy=False)})
        except Exception as error:  # as in _open_session
            reason = str(error).splitlines()[0]
            raise ValueError(f"expected images that the graph accepts, got {images.shape[1:]} each: {reason}") from error
        return self.labels_of(answer, len(images))

    def session(self) -> AbstractContextManager[object]:
        """Nothing to prepare."""
        return nullcontext()


def _open_session(path: Path) -> onnxruntime.InferenceSession:
    if not path.is_file():
        raise ValueError(f"expected an ONNX file, got {path}, which does not exist")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises classes of its own that share no base but Exception
        reason = str(error).splitlines()[0]
        raise ValueError(f"expected a readable ONNX file, got {path}: {reason}") from error
