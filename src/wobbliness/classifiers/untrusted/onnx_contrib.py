"""Standard ONNX operators in place of contributed and classical ones, for shape inference.

A replacement gives the same shapes and computes something else.
"""

from collections.abc import Callable
from typing import Any

import onnx

from wobbliness.classifiers.untrusted.onnx_claims import inner_graphs

Shape = tuple[int, ...] | None

# fmt: off
# The output has the shape of the first input.
SHAPE_KEEPING = {
    "BiasAdd", "BiasGelu", "BiasSoftmax", "FastGelu", "Gelu", "QuickGelu",
    "QuantizeLinear", "DequantizeLinear", "QLinearLeakyRelu", "QLinearSigmoid", "QLinearSoftmax",
    "GroupNorm", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization",
    "Inverse", "Trilu",
}
# How many of the inputs are those of the standard operator.
FUSED = {"FusedConv": 3, "FusedGemm": 3}
# Which of the inputs are the operands: scales and zero points lie between them.
PRODUCTS = {
    "DynamicQuantizeMatMul": (0, 1), "MatMulIntegerToFloat": (0, 1),
    "QLinearAdd": (0, 3), "QLinearMul": (0, 3),
}
# Of ai.onnx.ml: a row of scores for each row of features.
ROW_MAKERS = {
    "SVMClassifier", "SVMRegressor", "LinearRegressor",
    "TreeEnsembleClassifier", "TreeEnsembleRegressor",
}
# Attributes that tell the length of a row: by a number, or by a list as long.
ROW_NUMBERS = ("n_targets", "targets")
ROW_LISTS = (
    "classlabels_ints", "classlabels_int64s", "classlabels_strings", "cats_int64s", "cats_strings",
)
# fmt: on
# Scores of a row that are written out as so many zeros; longer ones get an upper bound.
MAX_ROW = 1024
TRANSPOSED_PRODUCTS = ("FusedMatMul", "TransposeMatMul")
TRANSPOSE_FLAGS = ("transA", "transB", "transBatchA", "transBatchB")
# Opset from which Split needs an attribute for its number of outputs.
SPLIT_BY_NUMBER = 18


def shape_of(value: onnx.ValueInfoProto) -> Shape:
    """Returns the sizes of a tensor, or None where one of them is unknown."""
    tensor = value.type.tensor_type
    # A tensor without a shape has no known rank; one with an empty shape is a number.
    if not tensor.HasField("shape"):
        return None
    is_known = all(
        dimension.HasField("dim_value") and dimension.dim_value >= 0
        for dimension in tensor.shape.dim
    )
    return tuple(int(dimension.dim_value) for dimension in tensor.shape.dim) if is_known else None


def replace_contrib_operators(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """Replaces operators of com.microsoft by standard ones that give the same shapes.

    Operators without such a counterpart stay.

    Args:
        model: for inference only, since it computes something else afterwards; changed in place.

    Returns:
        The steps that are no more there, by their first output.
    """
    version = next(
        (opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")), 1
    )
    replaced: dict[str, onnx.NodeProto] = {}
    _replace(model.graph, version, replaced)
    return replaced


def _replace(graph: onnx.GraphProto, version: int, replaced: dict[str, onnx.NodeProto]) -> None:
    steps = []
    for node in graph.node:
        for inner in inner_graphs(node):
            _replace(inner, version, replaced)
        instead = _standard(node, version) if node.input and node.output else []
        if instead:
            replaced[node.output[0]] = node
            outputs = set(node.output)
            for value in graph.output:
                if value.name in outputs:
                    value.ClearField("type")  # what stands in place may give another
        steps += instead or [node]
    _set_steps(graph, steps)


def _set_steps(graph: onnx.GraphProto, steps: list[onnx.NodeProto]) -> None:
    """Gives a graph other steps, some of which may be its own."""
    # Copies: deleting a graph's steps frees the memory of those that are kept.
    steps = [onnx.NodeProto.FromString(node.SerializeToString()) for node in steps]
    del graph.node[:]
    graph.node.extend(steps)


def _standard(node: onnx.NodeProto, version: int) -> list[onnx.NodeProto]:
    """Returns standard steps with outputs of the same shapes; none where there are no such."""
    name, inputs, output = node.op_type, list(node.input), node.output[0]
    if node.domain == "ai.onnx.ml":
        return _standard_of_ml(node)
    if node.domain != "com.microsoft":
        return []
    # Skip-normalisations may give the sum that they normalise as their fourth output, too.
    if name in SHAPE_KEEPING:
        sums = [output for output in node.output[3:4] if output] if name.startswith("Skip") else []
        return [onnx.helper.make_node("Identity", inputs[:1], [each]) for each in (output, *sums)]
    if name in FUSED:
        return [_without_activation(node)]
    if name in PRODUCTS and len(inputs) > max(PRODUCTS[name]):
        operator = "Add" if name.startswith("QLinear") else "MatMul"
        operands = [inputs[index] for index in PRODUCTS[name]]
        return [onnx.helper.make_node(operator, operands, [output])]
    rule = RULES.get(name)
    return rule(node, version) if rule is not None else []


def _without_activation(node: onnx.NodeProto) -> onnx.NodeProto:
    """Returns the standard step of one that is fused with the activation after it."""
    name, inputs = node.op_type, list(node.input)
    step = onnx.helper.make_node(name.removeprefix("Fused"), inputs[: FUSED[name]], node.output[:1])
    step.attribute.extend(part for part in node.attribute if not part.name.startswith("activation"))
    return step


def _standard_of_ml(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    name, output = node.op_type, node.output[0]
    if name in ("Scaler", "Normalizer", "Imputer", "Binarizer"):
        return [onnx.helper.make_node("Identity", node.input[:1], [output])]
    # Columns by their numbers, which may be given in any shape: flattened, then gathered.
    if name == "ArrayFeatureExtractor" and len(node.input) == 2:
        whole, flat = f"{output}/whole", f"{output}/flat"
        return [
            _flat_shape(whole),
            onnx.helper.make_node("Reshape", [node.input[1], whole], [flat]),
            onnx.helper.make_node("Gather", [node.input[0], flat], [output], axis=-1),
        ]
    length = row_length(node) if name in ROW_MAKERS else 0
    return _rows(node, length) if 0 < length <= MAX_ROW else []


def _flat_shape(name: str) -> onnx.NodeProto:
    """Returns a step for the shape [-1], to which Reshape flattens."""
    shape = onnx.helper.make_tensor(name, onnx.TensorProto.INT64, [1], [-1])
    return onnx.helper.make_node("Constant", [], [name], value=shape)


def _rows(node: onnx.NodeProto, length: int) -> list[onnx.NodeProto]:
    """Returns steps for a label for each row, if there are two outputs, and a row of scores."""
    *labels, scores = node.output[:2]
    top, numbers, whole = (f"{scores}/{part}" for part in ("top", "numbers", "whole"))
    # ArgMax gives a number for each row, as labels are; zeros are added to it as a row of scores.
    zeros = onnx.helper.make_tensor(numbers, onnx.TensorProto.FLOAT, [length], [0.0] * length)
    reshaped = [
        onnx.helper.make_node("Reshape", [f"{top}/index", whole], [label])
        for label in filter(None, labels)
    ]
    return [
        onnx.helper.make_node("ArgMax", node.input[:1], [f"{top}/index"], axis=1, keepdims=1),
        onnx.helper.make_node("Cast", [f"{top}/index"], [top], to=onnx.TensorProto.FLOAT),
        _flat_shape(whole),
        onnx.helper.make_node("Constant", [], [numbers], value=zeros),
        *reshaped,
        onnx.helper.make_node("Add", [top, numbers], [scores]),
    ]


def row_length(node: onnx.NodeProto) -> int:
    """Returns an upper bound on the scores that a classical operator gives for each row."""
    lengths = [1]
    for attribute in node.attribute:
        if attribute.name in ROW_NUMBERS:
            lengths.append(attribute.i)
        elif attribute.name in ROW_LISTS:
            lengths.append(len(attribute.ints) + len(attribute.strings))
        elif attribute.name == "inputdimensions":
            lengths.append(sum(abs(size) for size in attribute.ints))
    longest = max(lengths)
    # Without probabilities an SVM gives a score for each pair of classes.
    has_pairs = node.op_type == "SVMClassifier" and not any(
        part.name == "prob_a" and part.floats for part in node.attribute
    )
    return max(longest, longest * (longest - 1) // 2) if has_pairs else longest


def _fused_product(node: onnx.NodeProto, _: int) -> list[onnx.NodeProto]:
    """Returns a plain product; how far it is transposed is known only with its rank."""
    is_plain = not any(_numbers(node).get(flag) for flag in TRANSPOSE_FLAGS)
    return [onnx.helper.make_node("MatMul", node.input[:2], node.output[:1])] if is_plain else []


def replace_transposed_products(model: onnx.ModelProto) -> bool:
    """Replaces products of transposed matrices of known rank by standard steps.

    Returns whether there were any.

    Args:
        model: with inferred shapes; changed in place.
    """
    graph = model.graph
    ranks, num_before = _ranks(graph), len(graph.node)
    steps: list[onnx.NodeProto] = []
    for node in graph.node:
        is_product = node.domain == "com.microsoft" and node.op_type in TRANSPOSED_PRODUCTS
        operands = [ranks.get(name, 0) for name in node.input[:2]]
        is_known = is_product and all(rank > 1 for rank in operands)
        steps += _transposed_product(node, operands) if is_known else [node]
    _set_steps(graph, steps)
    return len(steps) > num_before


def _ranks(graph: onnx.GraphProto) -> dict[str, int]:
    """Returns the number of axes of a graph's values and tensors, where it is known."""
    ranks = {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.output, *graph.input)
        if value.type.tensor_type.HasField("shape")
    }
    return ranks | {tensor.name: len(tensor.dims) for tensor in graph.initializer}


def _transposed_product(node: onnx.NodeProto, ranks: list[int]) -> list[onnx.NodeProto]:
    numbers, output = _numbers(node), node.output[0]
    steps, operands = [], []
    for name, rank, side in zip(node.input, ranks, "AB", strict=False):
        order = list(range(rank))
        # transBatch: the first axis becomes the last but one; trans: the last two are exchanged.
        if numbers.get(f"transBatch{side}"):
            order = [*order[1:-1], 0, order[-1]]
        if numbers.get(f"trans{side}"):
            order = [*order[:-2], order[-1], order[-2]]
        operands.append(f"{output}/{side}")
        steps.append(onnx.helper.make_node("Transpose", [name], operands[-1:], perm=order))
    return [*steps, onnx.helper.make_node("MatMul", operands, [output])]


def _quantised_gemm(node: onnx.NodeProto, _: int) -> list[onnx.NodeProto]:
    if len(node.input) < 4:
        return []
    numbers = _numbers(node)
    flags: dict[str, Any] = {
        name: numbers[name] for name in ("transA", "transB") if name in numbers
    }
    return [onnx.helper.make_node("Gemm", [node.input[0], node.input[3]], node.output[:1], **flags)]


def _packed_attention(node: onnx.NodeProto, version: int) -> list[onnx.NodeProto]:
    """Returns standard steps for attention whose queries, keys and values are one product.

    The answer is as large as the values.
    """
    if (
        any(part.name == "qkv_hidden_sizes" for part in node.attribute)
        or any(node.output[1:])
        or len(node.input) < 2
    ):
        return []
    # Queries, keys and values lie side by side in one product; the answer is as its last third.
    output = node.output[0]
    parts = [f"{output}/{part}" for part in ("queries", "keys")]
    flags: dict[str, Any] = {"num_outputs": 3} if version >= SPLIT_BY_NUMBER else {}
    return [
        onnx.helper.make_node("MatMul", node.input[:2], [f"{output}/all"]),
        onnx.helper.make_node("Split", [f"{output}/all"], [*parts, output], axis=-1, **flags),
    ]


def _attention(node: onnx.NodeProto, _: int) -> list[onnx.NodeProto]:
    # As many rows as queries, as many columns as values: the product has them, whatever it sums.
    is_plain = len(node.input) > 2 and all(node.input[:3]) and not any(node.output[1:])
    return _einsum(node, [node.input[0], node.input[2]], "bqh,bkv->bqv") if is_plain else []


def _global_pool(node: onnx.NodeProto, _: int) -> list[onnx.NodeProto]:
    is_first = not _numbers(node).get("channels_last")
    return (
        [onnx.helper.make_node("GlobalAveragePool", node.input[:1], node.output[:1])]
        if is_first
        else []
    )


def _distances(node: onnx.NodeProto, _: int) -> list[onnx.NodeProto]:
    return _einsum(node, list(node.input), "nd,md->nm")


def _einsum(node: onnx.NodeProto, inputs: list[str], equation: str) -> list[onnx.NodeProto]:
    return [onnx.helper.make_node("Einsum", inputs, node.output[:1], equation=equation)]


def _numbers(node: onnx.NodeProto) -> dict[str, int]:
    return {attribute.name: attribute.i for attribute in node.attribute}


RULES: dict[str, Callable[[onnx.NodeProto, int], list[onnx.NodeProto]]] = {
    "FusedMatMul": _fused_product,
    "TransposeMatMul": _fused_product,
    "QGemm": _quantised_gemm,
    "Attention": _packed_attention,
    "QAttention": _packed_attention,
    "MultiHeadAttention": _attention,
    "QLinearGlobalAveragePool": _global_pool,
    "CDist": _distances,
}
"""By operator: the standard steps, given the version of the standard operators."""
