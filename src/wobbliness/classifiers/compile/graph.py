"""An ONNX graph in ONNX Runtime, on one core for each calling thread."""

from copy import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from jaxtyping import Shaped

from wobbliness.classifiers.base import in_blocks
from wobbliness.classifiers.compile.gates import LOOKED_AT, ROWS, RowsInput, gated_model
from wobbliness.classifiers.compile.quantised import QuantisedGraph, quantise
from wobbliness.classifiers.compile.session import open_session
from wobbliness.classifiers.signature.layouts import ImageShape, Layout
from wobbliness.classifiers.signature.onnx_answers import (
    classes_of,
    declared_outputs,
    is_without_batch,
    threshold_of,
)
from wobbliness.classifiers.signature.onnx_input import OnnxInput
from wobbliness.classifiers.signature.outputs import choose_output
from wobbliness.classifiers.signature.pixel_scale import PixelScale
from wobbliness.classifiers.untrusted.onnx_claims import written_out
from wobbliness.classifiers.untrusted.onnx_content import external_files, read_checked
from wobbliness.classifiers.untrusted.onnx_randomness import (
    block_dependent_operator,
    check_randomness,
)
from wobbliness.classifiers.untrusted.onnx_sizes import GraphSizes, check_sizes, shape_outside
from wobbliness.classifiers.untrusted.onnx_sorted import check_unsorted
from wobbliness.perturbations.network.gated_nodes import GatedNodes
from wobbliness.runtime.errors import reason_of

# Input and output of the loop over blocks.
BLOCKS, BLOCKS_OF_SCORES = "blocks", "blocks_of_scores"
# Values held at one time by a block of a graph of a free batch: 2 GiB as float32.
MAX_BLOCK_VALUES = 2**29
# Weights of a file that is quantised: a serialised graph may have 2 GiB at most.
MAX_QUANTISED_BYTES = 2**31 - 2**20


@dataclass(frozen=True, kw_only=True)
class GraphOptions:
    """The options that a user gives for a graph beyond what it declares.

    Attributes:
        layout: where the channels are.
        output: name or number of the output to read.
        scale: the pixel values that it wants.
        num_classes: K.
        integers: whether inputs are integers, such as token ids, as they are.
    """

    layout: Layout | None = None
    output: str | int | None = None
    scale: PixelScale | None = None
    num_classes: int | None = None
    integers: bool = False


class OnnxGraph:
    """One output of a graph with one input `(B, ...)`.

    A graph holds operators and numbers only: opening one runs no code of its author's.

    Attributes:
        batch_size: B where the graph fixes it, 1 where an image's answer depends on the rest of a
            block; blocks then have that size, and the last one is padded.
        image_shape: of one image, channels first; None inside where any size goes, None where
            images are flat.
        classes: those that the graph lists for its labels; None where it lists none, or gives
            scores.
        threshold: of class 1, in one score for two classes; None where it is unknown.
        rounding: what is done to noisy copies for a graph of whole numbers; None for one of floats.
    """

    batch_size: int | None = None
    image_shape: ImageShape | None = None
    classes: np.ndarray | None = None
    threshold: float | None = None
    rounding: str | None = None

    def __init__(
        self,
        source: Path | bytes,
        *,
        takes_blocks: bool = False,
        options: GraphOptions | None = None,
    ) -> None:
        """Opens a graph.

        Args:
            source: an ONNX file, which is checked first as untrusted; or the content of a graph of
                our own.
            takes_blocks: whether the graph takes several blocks in a call, `(T, B, ...)`, as
                `over_blocks` makes it.
            options: of the user, for a file.

        Raises:
            ValueError: it cannot be read, may not be opened, has not one input of images or no
                output of classes, or the options contradict it.
        """
        self._takes_blocks = takes_blocks
        self._source = source if isinstance(source, Path) else None
        self._prepare: OnnxInput | RowsInput | None = None
        self._sizes: GraphSizes | None = None
        if isinstance(source, Path):
            self._open_file(source, options or GraphOptions())
        else:
            self._session = open_session(source, "the graph", None)
            self._input = self._session.get_inputs()[0].name
            self._output = self._session.get_outputs()[0].name

    def _open_file(self, path: Path, options: GraphOptions) -> None:
        checked, name = read_checked(path), str(path)
        model = checked.model
        # All checks come before the runtime opens the file, which makes its constants then.
        self._sizes = _checked_sizes(model, name)
        self._session = open_session(checked.content, name, checked.folder)
        inputs = self._session.get_inputs()
        self._prepare = OnnxInput(
            inputs,
            model,
            layout=options.layout,
            scale=options.scale,
            integers=options.integers,
            source=name,
        )
        self._input, self.rounding = self._prepare.name, self._prepare.rounding
        self.batch_size, self.image_shape = self._prepare.batch_size, self._prepare.image_shape
        if operator := block_dependent_operator(model):
            self.batch_size = _single_image_block(self.batch_size, operator, name)
        self._choose_output(model.graph, options, name)

    def gated(
        self, nodes: GatedNodes, images: Shaped[np.ndarray, "B ..."]
    ) -> tuple["OnnxGraph", int]:
        """Returns the graph of a file with gates, for rows of image values and gates.

        Args:
            nodes: which nodes get a gate.
            images: some images, to see the shapes of the nodes.

        Returns:
            The graph, and the number of gates in a row.

        Raises:
            ValueError: the file has none, or too few, of these nodes, or refuses the images.
        """
        # Read and checked again: a graph does not keep its file's content in memory.
        source, prepare = self._source, self._prepare
        assert isinstance(source, Path)
        assert isinstance(prepare, OnnxInput)
        checked, name = read_checked(source), str(source)
        _checked_sizes(checked.model, name)
        some = np.resize(images, (self.batch_size or LOOKED_AT, *images.shape[1:]))
        made = gated_model(
            onnx.ModelProto.FromString(checked.content),
            nodes,
            prepare(some),
            image_input=self._input,
            folder=checked.folder,
        )
        # Output, classes and threshold stay those of the file.
        gated = copy(self)
        gated._session = open_session(made.model.SerializeToString(), name, checked.folder)
        gated._input, gated.image_shape = ROWS, None
        gated._prepare = RowsInput(prepare, images.shape[1:])
        return gated, made.num_gates

    def quantised(
        self, images: Shaped[np.ndarray, "B ..."], content: bytes | None = None
    ) -> tuple["OnnxGraph", float]:
        """Returns the quantised twin of a graph, and the estimated cost of a pass over float32's.

        Args:
            images: whose activations set the ranges of the integers.
            content: of a graph of our own, without the loop over blocks; a file is read again.

        Raises:
            ValueError: its input is not of float32, its answers are labels, or it cannot be
                quantised.
        """
        twin = copy(self)
        if content is not None:
            name = onnx.load_model_from_string(content).graph.input[0].name
            made = quantise(content, images, name=name)
            model = over_blocks(onnx.load_model_from_string(made.content))
            twin._session = open_session(model.SerializeToString(), "the quantised graph", None)
            return twin, made.relative_cost
        made = self._quantised_file(images)
        twin._session = open_session(made.content, "the quantised graph", None)
        return twin, made.relative_cost

    def _quantised_file(self, images: Shaped[np.ndarray, "B ..."]) -> QuantisedGraph:
        if self._source is None or not isinstance(self._prepare, OnnxInput):
            raise ValueError("expected a graph without gates, got one with gates")
        if self.classes is not None:
            raise ValueError("expected a graph of scores, got one of labels")
        inputs = self._prepare(images)
        if inputs.dtype != np.float32:
            raise ValueError(f"expected a graph of float32, got one of {inputs.dtype}")
        # Read and checked again: a graph does not keep its file's content in memory.
        checked = read_checked(self._source)
        _checked_sizes(checked.model, str(self._source))
        whole = onnx.ModelProto.FromString(checked.content)
        outside = sum(path.stat().st_size for path in external_files(self._source))
        if outside + len(checked.content) > MAX_QUANTISED_BYTES:
            raise ValueError(f"expected at most {MAX_QUANTISED_BYTES} bytes to be quantised")
        onnx.load_external_data_for_model(whole, str(checked.folder))
        content = whole.SerializeToString()
        return quantise(content, inputs, name=self._input, batch_size=self.batch_size)

    def _choose_output(self, graph: onnx.GraphProto, options: GraphOptions, name: str) -> None:
        """Chooses the output to read, and reads what the graph says about its values."""
        given = self._prepare.batch_size if isinstance(self._prepare, OnnxInput) else None
        outputs = declared_outputs(self._session.get_outputs(), graph, given)
        index = choose_output(outputs, options.output, num_classes=options.num_classes, source=name)
        chosen = outputs[index]
        self._output = chosen.name
        if chosen.is_float:
            check_unsorted(graph, chosen.name, chosen.width)
        self.classes = None if chosen.is_float else classes_of(graph, chosen.name)
        self.threshold = threshold_of(graph, chosen.name, has_one_score=chosen.width == 1)

    def preprocessing(self) -> dict[str, str]:
        """Describes pixel values, layout and the output that is read, for comparisons."""
        if self._prepare is None:
            return {}
        return self._prepare.preprocessing() | {"output": self._output}

    def run(self, images: Shaped[np.ndarray, "B ..."], block_size: int) -> np.ndarray:
        """Computes the output for a batch, in blocks and a remainder.

        Blocks have `block_size` images, or the number that the graph fixes.

        Raises:
            ValueError: the graph declares another shape of input, or refuses this one.
        """
        if self._takes_blocks:
            return self._run_all_blocks(images, block_size)
        images = images if self._prepare is None else self._prepare(images)
        size = self.batch_size or self._limited_block_size(block_size)
        return np.asarray(in_blocks(self._run_block, images, size))

    def _limited_block_size(self, block_size: int) -> int:
        """Returns the block size, smaller where blocks would hold more than MAX_BLOCK_VALUES."""
        held = self._sizes.held_per_image if self._sizes is not None else 0
        return min(block_size, max(1, MAX_BLOCK_VALUES // max(1, held)))

    def _run_block(self, images: np.ndarray) -> np.ndarray:
        """Runs one block, padded with its own images where it is shorter than the graph's size."""
        if self.batch_size == 1:
            answer = self._run(images)
            return answer[None] if is_without_batch(answer.shape) else answer
        if self.batch_size is None or len(images) == self.batch_size:
            return self._run(images)
        # The answers to the padding are dropped.
        return self._run(np.resize(images, (self.batch_size, *images.shape[1:])))[: len(images)]

    def _run_all_blocks(self, images: Shaped[np.ndarray, "B ..."], block_size: int) -> np.ndarray:
        """Runs all whole blocks in one call and the remainder in another."""
        # The whole blocks as an axis of their own, then the remainder as one shorter block.
        num_whole = len(images) // block_size * block_size
        parts = [images[:num_whole].reshape(-1, block_size, *images.shape[1:])] if num_whole else []
        if num_whole < len(images):
            parts.append(images[None, num_whole:])
        outputs = [self._run(part) for part in parts]
        return np.concatenate([output.reshape(-1, *output.shape[2:]) for output in outputs])

    def _run(self, images: np.ndarray) -> np.ndarray:
        try:
            output: np.ndarray = self._session.run([self._output], {self._input: images})[0]
        # ONNX Runtime raises classes of its own that share no base but Exception.
        except Exception as error:
            refused = f"expected images that the graph accepts, got {images.shape} at once"
            raise ValueError(f"{refused}: {reason_of(error)}") from error
        return output

    def values_per_image(self) -> int | None:
        """Returns the values in input and output of the largest step for one image, if known."""
        return None if self._sizes is None else self._sizes.values_per_image


def _checked_sizes(model: onnx.ModelProto, name: str) -> GraphSizes:
    """Checks a graph and computes its sizes; removes its declared sizes and larger tensors."""
    outside = shape_outside(model)
    try:
        whole = written_out(model)
        check_randomness(whole)
        return check_sizes(whole, outside=outside)
    except ValueError as error:
        raise ValueError(f"{error}, in {name}") from error


def _single_image_block(batch_size: int | None, operator: str, name: str) -> int:
    """Returns a block size of 1 for a graph whose answers depend on the rest of a block."""
    if batch_size not in (None, 1):
        raise ValueError(
            f"expected a graph that answers alike in any company, got {operator} for {batch_size} "
            f"images together in {name}"
        )
    return 1


def over_blocks(model: onnx.ModelProto) -> onnx.ModelProto:
    """Wraps a graph in a loop over blocks.

    The graph has one input and one output; `(B, ...)` to `(B, K)` becomes `(T, B, ...)` to
    `(T, B, K)`.

    The blocks of one image then take one call, and a thread waits for the GIL once instead
    of once a block.
    """
    if {model.graph.input[0].name, model.graph.output[0].name} & {BLOCKS, BLOCKS_OF_SCORES}:
        raise ValueError(
            f"expected a graph with other names than those of the loop, {BLOCKS} and "
            f"{BLOCKS_OF_SCORES}"
        )
    # Scan runs its body, the graph itself, for each entry of the first axis of its input.
    loop = onnx.helper.make_node(
        "Scan", [BLOCKS], [BLOCKS_OF_SCORES], num_scan_inputs=1, body=model.graph
    )
    images = _with_blocks(model.graph.input[0], BLOCKS)
    scores = _with_blocks(model.graph.output[0], BLOCKS_OF_SCORES)
    outer = onnx.helper.make_graph([loop], "over_blocks", [images], [scores])
    return onnx.helper.make_model(
        outer,
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
        functions=list(model.functions),
    )


def _with_blocks(value: onnx.ValueInfoProto, name: str) -> onnx.ValueInfoProto:
    tensor = value.type.tensor_type
    sizes = [axis.dim_value or None for axis in tensor.shape.dim]
    return onnx.helper.make_tensor_value_info(name, tensor.elem_type, [None, *sizes])
