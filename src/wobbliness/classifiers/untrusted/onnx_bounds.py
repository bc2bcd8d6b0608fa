"""Upper bounds on the output and workspace of ONNX steps whose sizes inference cannot tell.

The size of any other operator has to be known from shape inference.
"""

import math
from collections.abc import Sequence

import onnx

from wobbliness.classifiers.untrusted.onnx_contrib import SHAPE_KEEPING, Shape, row_length

# fmt: off
# Each output is at most as large as all inputs together.
BOUNDED_BY_SUM = {
    # functions of each value
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Cast", "CastLike",
    "Ceil", "Celu", "Clip", "Cos", "Cosh", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid",
    "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish", "Neg", "Not", "PRelu",
    "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus",
    "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu", "Trilu", "RotaryEmbedding",
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear",
    # normalisations, and functions along an axis
    "BatchNormalization", "Dropout", "GroupNormalization", "InstanceNormalization",
    "LayerNormalization", "LRN", "LpNormalization", "MeanVarianceNormalization",
    "RMSNormalization", "Hardmax", "LogSoftmax", "Softmax", "CumProd", "CumSum",
    # values that are selected or arranged
    "Compress", "Concat", "DepthToSpace", "Flatten", "GatherElements", "NonMaxSuppression",
    "Reshape", "ReverseSequence", "Scatter", "ScatterElements", "ScatterND", "Shape", "Size",
    "Slice", "SpaceToDepth", "Split", "Squeeze", "TopK", "Transpose", "Unique", "Unsqueeze",
    # fewer values: pools, determinants and reductions
    "ArgMax", "ArgMin", "Det", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool",
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare",
    # sequences and optional values
    "ConcatFromSequence", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase",
    "SequenceInsert", "SequenceLength", "SplitToSequence",
    "Optional", "OptionalGetElement", "OptionalHasElement",
    # of classical models, and contributed ones
    "ai.onnx.ml::Binarizer", "ai.onnx.ml::CategoryMapper", "ai.onnx.ml::Imputer",
    "ai.onnx.ml::LabelEncoder", "ai.onnx.ml::Normalizer", "ai.onnx.ml::Scaler",
    "ai.onnx.ml::ZipMap",
    "com.microsoft::QLinearConcat", "com.microsoft::QLinearGlobalAveragePool",
    "com.microsoft::QLinearReduceMean",
    *(f"com.microsoft::{name}" for name in SHAPE_KEEPING),
}
# Each output is at most as large as the product of all inputs.
BOUNDED_BY_PRODUCT = {
    # functions of several values, whose shapes are broadcast
    "Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater",
    "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "Pow", "Sub",
    "Sum", "Where", "Xor", "com.microsoft::QLinearAdd", "com.microsoft::QLinearMul",
    # products of matrices, and a part of the first input for each value of the second
    "MatMul", "MatMulInteger", "Gemm", "com.microsoft::FusedMatMul",
    "Gather", "GatherND", "ai.onnx.ml::ArrayFeatureExtractor",
}
# A row of outputs for each row of the input, its length one of the attributes'.
ROW_LENGTHS = {
    "ai.onnx.ml::FeatureVectorizer", "ai.onnx.ml::LinearClassifier", "ai.onnx.ml::LinearRegressor",
    "ai.onnx.ml::OneHotEncoder", "ai.onnx.ml::SVMClassifier", "ai.onnx.ml::SVMRegressor",
    "ai.onnx.ml::TreeEnsemble", "ai.onnx.ml::TreeEnsembleClassifier",
    "ai.onnx.ml::TreeEnsembleRegressor",
}
# Convolutions that are computed from one matrix of all patches.
CONVOLUTIONS = {"ConvTranspose", "ConvInteger", "QLinearConv", "DeformConv"}
# Products of all queries with all keys, which are kept until the values are weighted by them.
ATTENTION = {
    "Attention", "com.microsoft::Attention", "com.microsoft::MultiHeadAttention",
    "com.microsoft::QAttention",
}
# fmt: on


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
    # A product of two tensors needs no more than its output.
    if name == "Einsum" and len(node.input) > 2:
        return _all_labels(node, shapes)
    # A vote for each pair of classes.
    if name == "ai.onnx.ml::SVMClassifier":
        rows = shapes[0][0] if shapes[0] else 1
        return int(rows * row_length(node) ** 2)
    if name in ATTENTION:
        return _attention_scores(node, shapes)
    return 0


def _columns(node: onnx.NodeProto, shapes: Sequence[Shape], output: Shape) -> int:
    """Counts the values of an image's patches, each as a column as long as a filter."""
    # Scales and zero points of the image come before the filters there.
    index = 3 if node.op_type == "QLinearConv" else 1
    image, filters = shapes[0], shapes[index] if len(shapes) > index else None
    # A transposed convolution makes a patch for each value that it takes.
    positions = image if node.op_type == "ConvTranspose" else output
    if positions is None or filters is None:
        return 0
    return math.prod(filters[1:]) * math.prod(positions[2:])


def _all_labels(node: onnx.NodeProto, shapes: Sequence[Shape]) -> int:
    """Multiplies all axes of a product of three or more tensors.

    The product of two of them may be as large on the way.
    """
    sizes: dict[str, int] = {}
    # The operands of "bqh,bkh->bqk", one letter for each axis.
    for word, shape in zip(_equation(node).split("->")[0].split(","), shapes, strict=False):
        labels = word.replace(" ", "")
        # Axes without letters: the product of all sizes is a bound, if a coarse one.
        if shape is None or "..." in labels or len(labels) != len(shape):
            return math.prod(math.prod(shape or (1,)) for shape in shapes)
        for label, size in zip(labels, shape, strict=True):
            sizes[label] = max(size, sizes.get(label, 1))
    return int(math.prod(sizes.values()))


def _equation(node: onnx.NodeProto) -> str:
    found = (attribute.s for attribute in node.attribute if attribute.name == "equation")
    return next(found, b"").decode("utf-8", "replace")


def _attention_scores(node: onnx.NodeProto, shapes: Sequence[Shape]) -> int:
    """Counts one number for each head and pair of a query and a key."""
    queries = shapes[0]
    # Where queries, keys and values are one input, there are as many keys as queries.
    is_packed = node.op_type in ("Attention", "QAttention") and node.domain == "com.microsoft"
    keys = queries if is_packed or len(shapes) < 2 else shapes[1]
    if queries is None or keys is None or len(queries) < 3 or len(keys) < 3:
        return 0
    # (batch, positions, heads x width), or (batch, heads, positions, width).
    heads = _num_heads(node) if len(queries) == 3 else queries[1]
    return int(queries[0] * heads * queries[-2] * keys[-2])


def _num_heads(node: onnx.NodeProto) -> int:
    names = ("num_heads", "q_num_heads")
    given = (attribute.i for attribute in node.attribute if attribute.name in names)
    return int(max([1, *given]))
