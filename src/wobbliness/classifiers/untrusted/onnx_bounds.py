"""Upper bounds on the output and workspace of ONNX steps whose sizes inference cannot tell.

The size of any other operator has to be known from shape inference.
"""

import math
from collections.abc import Sequence

import onnx

from wobbliness.classifiers.untrusted.onnx_contrib import SHAPE_KEEPING, Shape, row_length

# Each output is at most as large as all inputs together.
BOUNDED_BY_SUM = {
    *(
        "Abs",
        "Acos",
        "Acosh",
        "Asin",
        "Asinh",
        "Atan",
        "Atanh",
        "BitwiseNot",
        "Cast",
        "Ceil",
        "Celu",
        "Clip",
        "Cos",
        "Cosh",
    ),
    *(
        "CumProd",
        "CumSum",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "Elu",
        "Erf",
        "Exp",
        "Floor",
        "Gelu",
        "HardSigmoid",
    ),
    *(
        "HardSwish",
        "Hardmax",
        "Identity",
        "IsInf",
        "IsNaN",
        "LeakyRelu",
        "Log",
        "LogSoftmax",
        "LpNormalization",
        "Mish",
        "Neg",
    ),
    *(
        "Not",
        "QuantizeLinear",
        "Reciprocal",
        "Relu",
        "Round",
        "Selu",
        "Shrink",
        "Sigmoid",
        "Sign",
        "Sin",
        "Sinh",
        "Softmax",
    ),
    *(
        "Softplus",
        "Softsign",
        "Sqrt",
        "Swish",
        "Tan",
        "Tanh",
        "ThresholdedRelu",
        "CastLike",
        "Trilu",
        "LRN",
        "PRelu",
    ),
    *(
        "BatchNormalization",
        "Dropout",
        "GroupNormalization",
        "InstanceNormalization",
        "LayerNormalization",
    ),
    *(
        "MeanVarianceNormalization",
        "RMSNormalization",
        "RotaryEmbedding",
        "GlobalAveragePool",
        "GlobalLpPool",
        "GlobalMaxPool",
    ),
    *(
        "Concat",
        "DepthToSpace",
        "Flatten",
        "Reshape",
        "ReverseSequence",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
    ),
    *(
        "Transpose",
        "Unsqueeze",
        "Shape",
        "Size",
        "Compress",
        "Unique",
        "TopK",
        "ArgMax",
        "ArgMin",
        "GatherElements",
        "Scatter",
    ),
    *("ScatterElements", "ScatterND", "Det", "NonMaxSuppression"),
    *(
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceProd",
    ),
    *("ReduceSum", "ReduceSumSquare"),
    *(
        "ConcatFromSequence",
        "SequenceAt",
        "SequenceConstruct",
        "SequenceEmpty",
        "SequenceErase",
        "SequenceInsert",
    ),
    *("SequenceLength", "SplitToSequence", "Optional", "OptionalGetElement", "OptionalHasElement"),
    *(
        "ai.onnx.ml::Binarizer",
        "ai.onnx.ml::CategoryMapper",
        "ai.onnx.ml::Imputer",
        "ai.onnx.ml::LabelEncoder",
    ),
    *("ai.onnx.ml::Normalizer", "ai.onnx.ml::Scaler", "ai.onnx.ml::ZipMap"),
    *(f"com.microsoft::{name}" for name in SHAPE_KEEPING),
    *(
        f"com.microsoft::{name}"
        for name in ("QLinearConcat", "QLinearGlobalAveragePool", "QLinearReduceMean")
    ),
}
# Each output is at most as large as the product of all inputs: they are broadcast.
BOUNDED_BY_PRODUCT = {
    *(
        "Add",
        "And",
        "BitShift",
        "BitwiseAnd",
        "BitwiseOr",
        "BitwiseXor",
        "Div",
        "Equal",
        "Greater",
        "GreaterOrEqual",
        "Less",
    ),
    *("LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "Pow", "Sub", "Sum", "Where", "Xor"),
    *("MatMul", "MatMulInteger", "Gemm", "Gather", "GatherND", "ai.onnx.ml::ArrayFeatureExtractor"),
    *(f"com.microsoft::{name}" for name in ("QLinearAdd", "QLinearMul", "FusedMatMul")),
}
# A row of outputs for each row of the input, its length one of the attributes'.
ROW_LENGTHS = {
    *(
        "ai.onnx.ml::FeatureVectorizer",
        "ai.onnx.ml::LinearClassifier",
        "ai.onnx.ml::LinearRegressor",
    ),
    *(
        "ai.onnx.ml::OneHotEncoder",
        "ai.onnx.ml::SVMClassifier",
        "ai.onnx.ml::SVMRegressor",
        "ai.onnx.ml::TreeEnsemble",
    ),
    *("ai.onnx.ml::TreeEnsembleClassifier", "ai.onnx.ml::TreeEnsembleRegressor"),
}
# Convolutions that are computed from one matrix of all patches.
CONVOLUTIONS = {"ConvTranspose", "ConvInteger", "QLinearConv", "DeformConv"}
ATTENTION = {
    "Attention",
    "com.microsoft::Attention",
    "com.microsoft::MultiHeadAttention",
    "com.microsoft::QAttention",
}


def full_name(node: onnx.NodeProto) -> str:
    """Returns an operator's name, with its domain if that is not the standard one."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"


def upper_bound(node: onnx.NodeProto, sizes: Sequence[int], shapes: Sequence[Shape]) -> int | None:
    """Returns an upper bound on each output's number of values, whatever the inputs' values.

    Returns None where no bound is known.

    Args:
        node: the step.
        sizes: upper bounds on the values of its inputs.
        shapes: of its inputs, None where unknown.
    """
    name = full_name(node)
    if name in BOUNDED_BY_SUM:
        return sum(sizes)
    if name in BOUNDED_BY_PRODUCT:
        return math.prod(max(1, size) for size in sizes)
    if name == "NonZero" and shapes[0] is not None:
        return sizes[0] * len(shapes[0])
    if name in ROW_LENGTHS:
        return sizes[0] * row_length(node)
    return None


def workspace(node: onnx.NodeProto, shapes: Sequence[Shape], output: Shape) -> int:
    """Returns how many values a step uses beyond inputs and outputs.

    This is 0 for most steps, and where the shapes are not known.
    """
    name = full_name(node)
    if name in CONVOLUTIONS:
        return _columns(node, shapes, output)
    if name == "Einsum" and len(node.input) > 2:
        return _all_labels(node, shapes)
    if name == "ai.onnx.ml::SVMClassifier":
        rows = shapes[0][0] if shapes[0] else 1
        return int(rows * row_length(node) ** 2)  # votes of pairs of classes
    if name in ATTENTION:
        return _attention_scores(node, shapes)
    return 0


def _columns(node: onnx.NodeProto, shapes: Sequence[Shape], output: Shape) -> int:
    """Counts the values of an image's patches, each as a column as long as a filter."""
    index = 3 if node.op_type == "QLinearConv" else 1
    image, filters = shapes[0], shapes[index] if len(shapes) > index else None
    positions = image if node.op_type == "ConvTranspose" else output
    if positions is None or filters is None:
        return 0
    return math.prod(filters[1:]) * math.prod(positions[2:])


def _all_labels(node: onnx.NodeProto, shapes: Sequence[Shape]) -> int:
    """Multiplies all axes of a product of three or more tensors.

    The product of two of them may be as large on the way.
    """
    equation = next(
        (
            attribute.s.decode("utf-8", "replace")
            for attribute in node.attribute
            if attribute.name == "equation"
        ),
        "",
    )
    sizes: dict[str, int] = {}
    for word, shape in zip(equation.split("->")[0].split(","), shapes, strict=False):
        labels = word.replace(" ", "")
        if shape is None or "..." in labels or len(labels) != len(shape):
            return math.prod(math.prod(shape or (1,)) for shape in shapes)
        for label, size in zip(labels, shape, strict=True):
            sizes[label] = max(size, sizes.get(label, 1))
    return int(math.prod(sizes.values()))


def _attention_scores(node: onnx.NodeProto, shapes: Sequence[Shape]) -> int:
    """Counts one number for each head and pair of a query and a key."""
    queries = shapes[0]
    is_packed = node.op_type in ("Attention", "QAttention") and node.domain == "com.microsoft"
    keys = queries if is_packed or len(shapes) < 2 else shapes[1]
    if queries is None or keys is None or len(queries) < 3 or len(keys) < 3:
        return 0
    heads = _num_heads(node) if len(queries) == 3 else queries[1]
    return int(queries[0] * heads * queries[-2] * keys[-2])


def _num_heads(node: onnx.NodeProto) -> int:
    return int(
        max(
            [
                1,
                *(
                    attribute.i
                    for attribute in node.attribute
                    if attribute.name in ("num_heads", "q_num_heads")
                ),
            ]
        )
    )
