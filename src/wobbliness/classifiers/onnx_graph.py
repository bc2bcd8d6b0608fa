"""An ONNX graph in ONNX Runtime, on one core for each calling thread."""

from pathlib import Path

import numpy as np
import onnx
from jaxtyping import Float32

from wobbliness.classifiers.layouts import Layout, find_layout, image_shape
from wobbliness.classifiers.onnx_checks import read_checked
from wobbliness.classifiers.onnx_session import chosen_output, layout_hint, open_session
from wobbliness.classifiers.onnx_sizes import check_sizes

BLOCKS, BLOCKS_OF_SCORES = "blocks", "blocks_of_scores"
FLOAT_TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}


class OnnxGraph:
    """The first output of a graph with one float input `(B, ...)`.

    A graph holds operators and numbers only: opening one runs no code of its author's.

    Attributes:
        batch_size: B where the graph fixes it; blocks then have that size, and what a last one lacks is filled up and dropped.
        image_shape: of one image, channels first; None inside where any size goes, None where images are flat.
    """

    def __init__(self, source: Path | bytes, *, takes_blocks: bool = False, layout: Layout | None = None) -> None:
        """Opens a graph.

        Args:
            source: an ONNX file, checked first for what a stranger's may not hold; or the content of a graph of our own.
            takes_blocks: whether the graph takes several blocks at once, `(T, B, ...)`, as `over_blocks` makes it.
            layout: where the channels are, for graphs that do not tell.

        Raises:
            ValueError: it cannot be read, may not be opened, or has not one float input.
        """
        self._takes_blocks = takes_blocks
        self._name = str(source) if isinstance(source, Path) else "the graph"
        content, model = read_checked(source) if isinstance(source, Path) else (source, None)
        self._values_per_image = None if model is None else _values_per_image(model)
        hint = None if model is None else layout_hint(model.graph)
        if model is not None:
            check_sizes(model)
        self._session = open_session(content, self._name, source.parent if isinstance(source, Path) else None)
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type not in FLOAT_TYPES or len(inputs[0].shape) < 2:
            found = ", ".join(f"{node.name}: {node.type} {node.shape}" for node in inputs)
            raise ValueError(f"expected a graph with one float input (B, ...), got {found or 'none'} in {self._name}")
        self._input = inputs[0]
        self._dtype = FLOAT_TYPES[inputs[0].type]
        self._output = chosen_output(self._session.get_outputs(), self._name)
        sizes = [size if isinstance(size, int) else None for size in inputs[0].shape]
        self.batch_size = None if takes_blocks else sizes[0]
        self._layout = find_layout(sizes, "nchw" if model is None else layout, hint)
        self.image_shape = image_shape(sizes, self._layout)

    def run(self, images: Float32[np.ndarray, "B ..."], block_size: int) -> np.ndarray:
        """The output for a batch, made in blocks of `block_size`, or of the size that the graph fixes, and a rest.

        Raises:
            ValueError: the graph declares another shape of input, or refuses this one.
        """
        if self._takes_blocks:
            return self._run_all_blocks(images, block_size)
        images, size = self._as_declared(images), self.batch_size or block_size
        return np.concatenate([self._run_block(images[first : first + size]) for first in range(0, len(images), size)])

    def _as_declared(self, images: Float32[np.ndarray, "B ..."]) -> np.ndarray:
        """Images in the graph's own layout and type."""
        declared = self._input.shape
        given = images.reshape(len(images), -1) if len(declared) == 2 else images
        if self._layout == "nhwc" and given.ndim == 4:
            given = given.transpose(0, 2, 3, 1)
        fits = len(declared) == given.ndim and all(
            not isinstance(size, int) or size == got for size, got in zip(declared[1:], given.shape[1:], strict=True)
        )
        if not fits:
            raise ValueError(f"expected images of shape {declared}, as the graph declares, got {given.shape}")
        return given.astype(self._dtype, order="C", copy=False)

    def _run_block(self, images: np.ndarray) -> np.ndarray:
        """One pass; a block shorter than the graph's own size is filled up with images that it already holds."""
        if self.batch_size is None or len(images) == self.batch_size:
            return self._run(images)
        return self._run(np.resize(images, (self.batch_size, *images.shape[1:])))[: len(images)]

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
            output: np.ndarray = self._session.run([self._output], {self._input.name: images})[0]
        except Exception as error:  # ONNX Runtime raises classes of its own that share no base but Exception
            reason = str(error).splitlines()[0]
            raise ValueError(f"expected images that the graph accepts, got {images.shape} at once: {reason}") from error
        return output

    def values_per_image(self) -> int | None:
        """Values in the input and output of the largest step for one image; None where the graph does not tell its shapes."""
        return self._values_per_image


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


def _values_per_image(model: onnx.ModelProto) -> int | None:
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except Exception:  # what cannot be told is left to the images' own size
        return None
    values = {value.name: _row_size(value) for value in (*graph.input, *graph.value_info, *graph.output)}
    sizes = (sum(values.get(name, 0) for name in (*node.input[:1], *node.output)) for node in graph.node)
    return max(sizes, default=None) or None


def _row_size(value: onnx.ValueInfoProto) -> int:
    """Values of one row: the product of all axes but the first; 0 where an axis is unknown."""
    sizes = [axis.dim_value for axis in value.type.tensor_type.shape.dim[1:]]
    return int(np.prod(sizes, dtype=np.int64))
