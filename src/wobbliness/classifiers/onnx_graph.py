"""An ONNX graph in ONNX Runtime, on one core for each calling thread."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from jaxtyping import Float32

BLOCKS, BLOCKS_OF_SCORES = "blocks", "blocks_of_scores"
FLOAT_TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}


class OnnxGraph:
    """The first output of a graph with one float input `(B, ...)`.

    A graph holds operators and numbers only: opening one runs no code of its author's.
    """

    def __init__(self, source: Path | bytes, *, takes_blocks: bool = False) -> None:
        """Opens a graph.

        Args:
            source: an ONNX file, or its content.
            takes_blocks: whether the graph takes several blocks at once, `(T, B, ...)`, as `over_blocks` makes it.

        Raises:
            ValueError: it cannot be read, or has not one float input.
        """
        self._source = source
        self._takes_blocks = takes_blocks
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
        if self._takes_blocks:
            return self._run_all_blocks(images, block_size)
        declared = self._input.shape
        fits = len(declared) == images.ndim and all(
            not isinstance(size, int) or size == got for size, got in zip(declared[1:], images.shape[1:], strict=True)
        )
        if not fits or (isinstance(declared[0], int) and declared[0] != min(block_size, len(images))):
            raise ValueError(f"expected images of shape {declared}, as the graph declares, got {images.shape}")
        images = images.astype(self._dtype, copy=False)
        return np.concatenate([self._run(images[first : first + block_size]) for first in range(0, len(images), block_size)])

    def _run_all_blocks(self, images: Float32[np.ndarray, "B ..."], block_size: int) -> np.ndarray:
        """One call for all whole blocks and one for the rest."""
        num_whole = len(images) // block_size * block_size
        parts = [images[:num_whole].reshape(-1, block_size, *images.shape[1:])] if num_whole else []
        if num_whole < len(images):
            parts.append(images[None, num_whole:])
        outputs = [self._run(part) for part in parts]
        return np.concatenate([output.reshape(-1, *output.shape[2:]) for output in outputs])

    def _run(self, images: np.ndarray) -> np.ndarray:
        try:
            output: np.ndarray = self._session.run(self._outputs, {self._input.name: images})[0]
        except Exception as error:  # ONNX Runtime raises classes of its own that share no base but Exception
            reason = str(error).splitlines()[0]
            raise ValueError(f"expected images that the graph accepts, got {images.shape} at once: {reason}") from error
        return output

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


def over_blocks(model: onnx.ModelProto) -> onnx.ModelProto:
    """A graph of one input and one output, `(B, ...)` to `(B, K)`, put into a loop over blocks, `(T, B, ...)` to `(T, B, K)`.

    The blocks of one image then take one call, and a thread has to wait for Python's lock once instead of once a block.
    """
    if {model.graph.input[0].name, model.graph.output[0].name} & {BLOCKS, BLOCKS_OF_SCORES}:
        raise ValueError(f"expected a graph with other names than those of the loop, {BLOCKS} and {BLOCKS_OF_SCORES}")
    loop = onnx.helper.make_node("Scan", [BLOCKS], [BLOCKS_OF_SCORES], num_scan_inputs=1, body=model.graph)
    images, scores = _with_blocks(model.graph.input[0], BLOCKS), _with_blocks(model.graph.output[0], BLOCKS_OF_SCORES)
    outer = onnx.helper.make_graph([loop], "over_blocks", [images], [scores])
    return onnx.helper.make_model(
        outer, opset_imports=model.opset_import, ir_version=model.ir_version, functions=list(model.functions)
    )


def _with_blocks(value: onnx.ValueInfoProto, name: str) -> onnx.ValueInfoProto:
    tensor = value.type.tensor_type
    sizes = [axis.dim_value or None for axis in tensor.shape.dim]
    return onnx.helper.make_tensor_value_info(name, tensor.elem_type, [None, *sizes])


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
