"""How many values the steps of an ONNX graph make, told from the graph alone."""

import math

import onnx
import onnx.inliner

from wobbliness.classifiers.onnx_values import fold_small_values

MAX_STEP_VALUES = 2**28  # made by one step for one image, 1 GiB as float32
MAX_CREATED_VALUES = 2**27  # made out of nothing: by all steps that enlarge, or that need no image
MAX_ROUNDS = 10  # of inference; each tells the shapes that are computed from those of the last
FREE_SIZE = 224  # taken for axes of an image that the graph leaves free
LARGE_TENSOR = 1024  # values; shapes are never computed from tensors as large as that
ENLARGING = {"ConstantOfShape", "Expand", "Tile", "Range", "EyeLike", "OneHot", "Pad", "Resize", "Upsample", "Loop"}
ENLARGING |= {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "CenterCropPad", "Col2Im"}


def check_sizes(model: onnx.ModelProto) -> None:
    """ValueError where a graph makes more values than MAX_STEP_VALUES or MAX_CREATED_VALUES allow, for one image.

    The sizes come from ONNX's shape inference. What it cannot tell is let through, but for the operators that make much of
    little: there a size that cannot be told is refused.

    Args:
        model: checked; its larger tensors are dropped from it.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    _check_graph(_inferred(model).graph, {}, constants)


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with its functions written out and the shapes of its steps, for one image."""
    names = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        if value.name not in names:
            _fix_free_sizes(value)
    _drop_large_tensors(model.graph)
    try:
        whole = onnx.inliner.inline_local_functions(model) if model.functions else model
        for _ in range(MAX_ROUNDS):
            whole = onnx.shape_inference.infer_shapes(whole, data_prop=True)
            if not fold_small_values(whole):
                break
        return onnx.shape_inference.infer_shapes(whole, data_prop=True)
    except Exception as error:  # the checker's own classes share no base but Exception
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"expected a graph whose sizes can be told, got {reason}") from error


def _fix_free_sizes(value: onnx.ValueInfoProto) -> None:
    for axis, dimension in enumerate(value.type.tensor_type.shape.dim):
        if not dimension.dim_value:
            dimension.dim_value = FREE_SIZE if axis else 1


def _drop_large_tensors(graph: onnx.GraphProto) -> None:
    """Makes inputs of a graph's larger tensors: inference works on a copy of all it is given."""
    kept = []
    given = {value.name for value in graph.input}
    for tensor in graph.initializer:
        if math.prod(tensor.dims) <= LARGE_TENSOR and tensor.data_location != onnx.TensorProto.EXTERNAL:
            kept.append(tensor)
        elif tensor.name not in given:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _check_graph(graph: onnx.GraphProto, outer: dict[str, int | None], constants: set[str]) -> int:
    """The values that a graph makes out of nothing."""
    sizes = {**outer, **{value.name: _size(value) for value in (*graph.input, *graph.value_info, *graph.output)}}
    constants = constants | {tensor.name for tensor in graph.initializer}
    created = 0
    for node in graph.node:
        if all(name in constants for name in node.input if name):
            constants.update(node.output)
        created += _created(node, sizes, is_constant=node.output[0] in constants if node.output else False)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                created += _check_graph(attribute.g, sizes, constants)
        if created > MAX_CREATED_VALUES:
            raise ValueError(
                f"expected a graph that makes at most {MAX_CREATED_VALUES} values of its own, got {created} by {node.op_type}"
            )
    return created


def _created(node: onnx.NodeProto, sizes: dict[str, int | None], *, is_constant: bool) -> int:
    outputs = [sizes.get(name) for name in node.output if name]
    is_enlarging = node.op_type in ENLARGING and node.domain in ("", "ai.onnx")
    if is_enlarging and None in outputs:
        raise ValueError(f"expected sizes that the graph tells, got a {node.op_type} of unknown size; export with fixed sizes")
    most = max((size for size in outputs if size is not None), default=0)
    if most > MAX_STEP_VALUES:
        raise ValueError(f"expected steps of at most {MAX_STEP_VALUES} values, got {most} by {node.op_type}")
    return sum(size or 0 for size in outputs) if is_enlarging or is_constant else 0


def _size(value: onnx.ValueInfoProto) -> int | None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape") or any(not dimension.HasField("dim_value") for dimension in tensor.shape.dim):
        return None
    return math.prod(int(dimension.dim_value) for dimension in tensor.shape.dim)
