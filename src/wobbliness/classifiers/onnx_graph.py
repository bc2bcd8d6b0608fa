"""An ONNX graph in ONNX Runtime, on one core for each calling thread."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from jaxtyping import Float32

FLOAT_TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}


class OnnxGraph:
    """The first output of a graph with one float input `(B, ...)`.

    A graph holds operators and numbers only: opening one runs no code of its author's.
    """

    def __init__(self, source: Path | bytes) -> None:
        """Opens a graph.

        Args:
            source: an ONNX file, or its content.

        Raises:
            ValueError: it cannot be read, or has not one float input.
        """
        self._source = source
        self._name = str(source) if isinstance(source, Path) else "the graph"
        self._session = _open_session(source, self._name)
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type not in FLOAT_TYPES:
            found = ", ".join(f"{node.name}: {node.type}" for node in inputs)
            raise ValueError(f"expected a graph with one float input, got {found or 'none'} in {self._name}")
        self._input = inputs[0]
        self._dtype = FLOAT_TYPES[inputs[0].type]
        self._outputs = [self._session.get_outputs()[0].name]

    def run(self, images: Float32[np.ndarray, "B ..."], block_size: int) -> np.ndarray:
        """The first output for a batch, made in blocks of `block_size` and a rest.

        Raises:
            ValueError: the graph declares another shape of input, or refuses this one.
        """
        declared = self._input.shape
        fits = len(declared) == images.ndim and all(
            not isinstance(size, int) or size == got for size, got in zip(declared[1:], images.shape[1:], strict=True)
        )
        if not fits or (isinstance(declared[0], int) and declared[0] != min(block_size, len(images))):
            raise ValueError(f"expected images of shape {declared}, as the graph declares, got {images.shape}")
        images = images.astype(self._dtype, copy=False)
        try:
            blocks = [
                self._session.run(self._outputs, {self._input.name: images[first : first + block_size]})[0]
                for first in range(0, len(images), block_size)
            ]
        except Exception as error:  # ONNX Runtime raises classes of its own that share no base but Exception
            reason = str(error).splitlines()[0]
            raise ValueError(f"expected images that the graph accepts, got {images.shape[1:]} each: {reason}") from error
        return np.concatenate(blocks)

    def values_per_image(self) -> int | None:
        """Values in the input and output of the largest step for one image; None where the graph does not tell its shapes."""
        try:
            model = onnx.load_from_string(self._source) if isinstance(self._source, bytes) else _load_structure(self._source)
            graph = onnx.shape_inference.infer_shapes(model).graph
        except Exception:  # what cannot be told is left to the images' own size
            return None
        values = {value.name: _row_size(value) for value in (*graph.input, *graph.value_info, *graph.output)}
        return (
            max((sum(values.get(name, 0) for name in (*node.input[:1], *node.output)) for node in graph.node), default=None)
            or None
        )


def _open_session(source: Path | bytes, name: str) -> onnxruntime.InferenceSession:
    if isinstance(source, Path) and not source.is_file():
        raise ValueError(f"expected an ONNX file, got {name}, which does not exist")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(
            source if isinstance(source, bytes) else name, options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # as in run
        reason = str(error).splitlines()[0]
        raise ValueError(f"expected a readable ONNX file, got {name}: {reason}") from error


def _load_structure(path: Path) -> onnx.ModelProto:
    return onnx.load(str(path), load_external_data=False)


def _row_size(value: onnx.ValueInfoProto) -> int:
    """Values of one row: the product of all axes but the first; 0 where an axis is unknown."""
    sizes = [axis.dim_value for axis in value.type.tensor_type.shape.dim[1:]]
    return int(np.prod(sizes, dtype=np.int64))
