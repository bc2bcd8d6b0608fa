"""The quantised twin of a graph: the same network in 8-bit integers, by ONNX Runtime's own tools.

Static quantisation in QDQ form (Jacob et al. 2018): weights are symmetric integers for each output
channel, activations unsigned integers between the smallest and the largest value that calibration
inputs give.
"""

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from jaxtyping import Shaped

from wobbliness.classifiers.compile.session import FATAL
from wobbliness.runtime.errors import reason_of
from wobbliness.runtime.process_state import quiet_thread

# Inputs of a pass of calibration; fixed, so that the same inputs give the same twin.
CALIBRATION_BLOCK = 32
# Their answers stay float32: scores in 256 steps could not tell a small margin from a tie.
ENDS_IN_FLOAT = ["Gemm", "MatMul"]
# What is quantised: steps that multiply, and those between them that work on integers as well.
MULTIPLYING = ("Conv", "Gemm", "MatMul")
OPERATORS = [
    *MULTIPLYING,
    *("Add", "AveragePool", "Clip", "Concat", "Flatten", "GlobalAveragePool", "LeakyRelu"),
    *("MaxPool", "Pad", "Relu", "Reshape", "Squeeze", "Transpose", "Unsqueeze"),
]
# Cost of an int8 pass over a float32 one: a share for the products, and one for the values that are
# moved, which weighs the less the more products there are for each value. They follow four
# networks on a processor with VNNI, whose int8 was 0.8, 2.1, 2.7 and 3.85 times as fast at 13, 43,
# 97 and 389 products for each value.
COST_OF_PRODUCTS, COST_OF_VALUES = 0.25, 12.5
# What marks a graph as prepared for ONNX Runtime's tools.
FOLDED = {"onnx.quant.pre_process": "onnxruntime.quant"}


@dataclass(frozen=True, kw_only=True)
class QuantisedGraph:
    """A quantised graph.

    Attributes:
        content: the serialised graph, with the inputs and outputs of the one it was made of.
        relative_cost: estimate of the time of a pass over that of a float32 pass.
    """

    content: bytes
    relative_cost: float


def quantise(
    content: bytes, inputs: Shaped[np.ndarray, "B ..."], *, name: str, batch_size: int | None = None
) -> QuantisedGraph:
    """Quantises a graph with one input of float32.

    Args:
        content: of the graph, weights included.
        inputs: as the graph gets them; their activations set the ranges of the integers.
        name: of its input.
        batch_size: of the graph, where it fixes one.

    Raises:
        ValueError: the graph cannot be quantised, or has no step that multiplies.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            return _quantised(content, _Blocks(inputs, name, batch_size), Path(folder))
    # ONNX and its runtime raise classes of their own that share no base but Exception.
    except Exception as error:
        raise ValueError(f"expected a graph that can be quantised: {reason_of(error)}") from error


def _quantised(content: bytes, blocks: "_Blocks", folder: Path) -> QuantisedGraph:
    folded, made = folder / "folded.onnx", folder / "quantised.onnx"
    cost = relative_cost(_fold(content, folded))
    # Imported here: most measurements do without it.
    import onnxruntime.quantization as quantization

    with quiet_thread("onnxruntime"):
        quantization.quantize_static(
            folded,
            made,
            _reader(quantization, blocks),
            op_types_to_quantize=OPERATORS,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            extra_options={"OpTypesToExcludeOutputQuantization": ENDS_IN_FLOAT},
        )
    return QuantisedGraph(content=made.read_bytes(), relative_cost=cost)


def _fold(content: bytes, path: Path) -> onnx.ModelProto:
    """Writes and returns a graph after the optimisations that hold on any machine.

    Batch normalisation is folded into convolutions, constants into weights.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    options.log_severity_level = FATAL
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    model: onnx.ModelProto = onnx.load(path)
    # Without this mark the tools advise to fold first, on the root logger.
    onnx.helper.set_model_props(model, FOLDED)
    onnx.save(model, path)
    return model


def relative_cost(model: onnx.ModelProto) -> float:
    """Estimates the time of an int8 pass over that of a float32 pass, from sizes alone.

    COST_OF_PRODUCTS + COST_OF_VALUES / (products for each value): int8 makes products cheap, while
    values have to be read and written either way.

    Args:
        model: a graph whose weights are its own.

    Raises:
        ValueError: no step multiplies by weights.
    """
    inferred = onnx.shape_inference.infer_shapes(model).graph
    known = [*inferred.value_info, *inferred.input, *inferred.output]
    # A free batch counts as one input; the ratio does not depend on it.
    sizes = {value.name: _num_values(value) for value in known}
    weights = {tensor.name: tuple(tensor.dims) for tensor in inferred.initializer}
    num_values = num_products = 0
    for node in inferred.node:
        num_written = sizes.get(node.output[0], 0)
        num_values += num_written
        if node.op_type in MULTIPLYING and node.input[1] in weights:
            num_products += num_written * _products_for_each(node, weights[node.input[1]])
    if not num_products:
        raise ValueError("no step multiplies by weights")
    return COST_OF_PRODUCTS + COST_OF_VALUES * num_values / num_products


def _num_values(value: onnx.ValueInfoProto) -> int:
    return math.prod(axis.dim_value or 1 for axis in value.type.tensor_type.shape.dim)


def _products_for_each(node: onnx.NodeProto, weight: tuple[int, ...]) -> int:
    """Returns the products that one value of a step's output is the sum of."""
    if node.op_type == "Conv":
        return math.prod(weight[1:])
    is_transposed = any(part.name == "transB" and part.i for part in node.attribute)
    return weight[-1] if is_transposed else weight[-2]


class _Blocks:
    """Inputs as the calibration takes them, in blocks of one size."""

    def __init__(self, inputs: np.ndarray, name: str, batch_size: int | None) -> None:
        size = batch_size or CALIBRATION_BLOCK
        # The last block is filled up with the inputs themselves, which changes no range.
        num_rows = -(-len(inputs) // size) * size
        whole = np.resize(inputs, (num_rows, *inputs.shape[1:]))
        self._left: Iterator[np.ndarray] = iter(np.split(whole, num_rows // size))
        self._name = name

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Returns the next block by the name of the input; None after the last."""
        block = next(self._left, None)
        return None if block is None else {self._name: block}


def _reader(quantization: Any, blocks: _Blocks) -> Any:
    """Returns the blocks as the type that the tools check for."""
    reads = {"get_next": lambda _: blocks.get_next()}
    return type("Reader", (quantization.CalibrationDataReader,), reads)()
