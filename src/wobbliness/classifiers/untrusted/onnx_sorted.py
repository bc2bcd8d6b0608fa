"""A check for ONNX graphs that sort their scores, whose places then do not indicate classes."""

import math

import onnx
from onnx import numpy_helper

RESHAPING = {"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose"}
# Steps after which sorted scores are still sorted: monotone functions of each score, or parts of a
# row. Neg reverses the order, and a reversed order is sorted, too.
# fmt: off
ORDER_KEEPING = {
    "Identity", "Cast", "Softmax", "LogSoftmax", "Sigmoid", "Exp", "Log", "Neg", "Clip", "Relu",
    "Sqrt", "Tanh", "Slice", "QuantizeLinear", "DequantizeLinear", *RESHAPING,
}
# fmt: on
# Likewise where one operand is a constant, as for a temperature.
BINARY_OPERATORS = {"Add", "Sub", "Mul", "Div", "Pow"}


def check_unsorted(graph: onnx.GraphProto, name: str, width: int | None) -> None:
    """Refuses the values of the best few classes.

    Args:
        graph: of the file.
        name: of the output that is read.
        width: scores for each image, None where unknown.

    Raises:
        ValueError: TopK sorted the scores, possibly followed by steps that keep the order.
    """
    if sorts_scores(graph, name, width):
        raise ValueError(
            f"expected scores of classes in their own order, got {name}: scores that are sorted by "
            "TopK"
        )


def sorts_scores(graph: onnx.GraphProto, name: str, width: int | None = None) -> bool:
    """Checks whether TopK, which every sort becomes, orders the values of an output."""
    made_by = {made: node for node in graph.node for made in node.output}
    num_sorted = None if width == 1 else _num_sorted(graph, made_by, name)
    return num_sorted is not None and num_sorted >= (width or 2) > 1


def _num_sorted(
    graph: onnx.GraphProto, made_by: dict[str, onnx.NodeProto], name: str
) -> float | None:
    """Returns how many values TopK sorted for an output; None where it did not."""
    # From the output backwards through steps that keep the order, to TopK if it is there. Its first
    # output are the values, its second their places.
    seen, place = set[str](), 0
    while name in made_by and name not in seen:
        seen.add(name)
        node = made_by[name]
        if node.op_type == "TopK":
            return _number(graph, made_by, node) if name == node.output[place] else None
        if node.op_type in BINARY_OPERATORS:
            name = _computed_operand(made_by, *node.input)
        elif node.op_type in ORDER_KEEPING:
            name = node.input[0]
        # Scores in the order of places: sorted, if TopK made these places as its second output.
        elif node.op_type == "GatherElements":
            name, place = node.input[1], 1
        else:
            return None
    return None


def _computed_operand(made_by: dict[str, onnx.NodeProto], left: str, right: str) -> str:
    """Returns the operand that a step computes: the other one is a constant."""
    return left if left in made_by and made_by[left].op_type != "Constant" else right


def _number(
    graph: onnx.GraphProto, made_by: dict[str, onnx.NodeProto], node: onnx.NodeProto
) -> float:
    """Returns K of TopK; infinity where it is computed."""
    # Below opset 10 K is an attribute, from then on the second input.
    if len(node.input) < 2:
        return next(
            (attribute.i for attribute in node.attribute if attribute.name == "k"), math.inf
        )
    name = node.input[1]
    while name in made_by and made_by[name].op_type in {"Identity", "Cast", *RESHAPING}:
        name = made_by[name].input[0]
    tensors = _constants(graph, made_by, name)
    is_number = bool(tensors) and math.prod(tensors[0].dims) == 1
    return float(numpy_helper.to_array(tensors[0]).max()) if is_number else math.inf


def _constants(
    graph: onnx.GraphProto, made_by: dict[str, onnx.NodeProto], name: str
) -> list[onnx.TensorProto]:
    """Returns the tensors of a name: of the file, or of the step that makes it as a constant."""
    given = made_by.get(name)
    attributes = given.attribute if given is not None else ()
    constants = [attribute.t for attribute in attributes if attribute.name == "value"]
    return [*(tensor for tensor in graph.initializer if tensor.name == name), *constants]
