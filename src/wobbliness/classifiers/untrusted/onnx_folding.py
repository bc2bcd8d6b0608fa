"""Constant folding of the small numbers that an ONNX graph computes its shapes from."""

import math
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from wobbliness.classifiers.untrusted.onnx_contrib import shape_of

# Values of an operand or a result: shapes have few axes, and are never computed from more.
MAX_SMALL_VALUES = 1024
# fmt: off
FOLDED = {
    # sizes and constants
    "Shape", "Size", "Constant", "Identity", "Cast",
    # what selects and arranges them
    "Squeeze", "Unsqueeze", "Reshape", "Flatten", "Concat", "Slice", "Gather", "Transpose", "Split",
    # arithmetic
    "Add", "Sub", "Mul", "Div", "Mod", "Floor", "Ceil", "Neg", "Abs", "Min", "Max",
    "ReduceProd", "ReduceSum",
    # conditions
    "Where", "Equal", "Not", "And", "Or", "Less", "Greater", "LessOrEqual", "GreaterOrEqual",
    # what enlarges, computed where inference finds that the result is small
    "Range", "ConstantOfShape", "Expand", "Tile",
}
# fmt: on


def fold_small_values(model: onnx.ModelProto) -> bool:
    """Replaces computable steps by their values for the next shape inference.

    Returns whether there were any.

    Only steps whose inputs and results are of at most MAX_SMALL_VALUES values are computed.

    Args:
        model: with inferred shapes.
    """
    graph, values = model.graph, _small_tensors(model.graph)
    shapes = {value.name: shape_of(value) for value in (*graph.input, *graph.value_info)}
    opsets = {opset.domain: opset.version for opset in model.opset_import}
    outputs, kept = {value.name for value in graph.output}, []
    for node in graph.node:
        # A step that makes an output of the graph stays: outputs have to be made by steps.
        result = None if set(node.output) & outputs else _result(node, values, shapes, opsets)
        if result is None:
            kept.append(node)
            continue
        # Known to the steps that follow in this round; a tensor of the graph for the next one.
        values[node.output[0]] = result
        graph.initializer.append(onnx.numpy_helper.from_array(result, node.output[0]))
    has_folded = len(kept) < len(graph.node)
    del graph.node[:]
    graph.node.extend(kept)
    return has_folded


def _small_tensors(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    """Returns the values of a graph's small tensors by name."""
    return {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if math.prod(tensor.dims) <= MAX_SMALL_VALUES
    }


def _result(
    node: onnx.NodeProto,
    values: dict[str, np.ndarray],
    shapes: dict[str, tuple[int, ...] | None],
    opsets: dict[str, int],
) -> np.ndarray | None:
    """Computes a step's result if it is a small number of known values."""
    if node.op_type not in FOLDED or node.domain not in ("", "ai.onnx") or len(node.output) != 1:
        return None
    shape = shapes.get(node.output[0])
    # Checked before the step is run: the reference would make a result of any size.
    if shape is None or math.prod(shape) > MAX_SMALL_VALUES:
        return None
    given = {name: _operand(name, node.op_type, values, shapes) for name in node.input if name}
    if any(value is None for value in given.values()):
        return None
    try:
        answers: Any = ReferenceEvaluator(node, opsets=opsets).run(None, given)
        result = np.asarray(answers[0])
    except Exception:  # what cannot be computed stays a step
        return None
    return result if result.size <= MAX_SMALL_VALUES and result.dtype.kind in "iufb" else None


def _operand(
    name: str,
    op_type: str,
    values: dict[str, np.ndarray],
    shapes: dict[str, tuple[int, ...] | None],
) -> np.ndarray | None:
    """Returns a step's operand.

    Where the step uses its shape alone, any values of that shape will do, and take no memory.
    """
    shape = shapes.get(name)
    if op_type in ("Shape", "Size") and name not in values and shape is not None:
        return np.broadcast_to(np.float32(0), shape)
    return values.get(name)
