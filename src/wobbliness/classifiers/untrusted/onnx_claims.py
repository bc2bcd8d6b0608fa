"""The removal of an ONNX graph's declared sizes.

An author may declare any size, and shape inference believes it.
"""

import math
from collections.abc import Iterator

import onnx
import onnx.inliner

from wobbliness.runtime.errors import reason_of

# Taken for the axis of the channels where all of a picture's axes are free: most pictures have red,
# green and blue.
FREE_CHANNELS = 3
# Taken for other axes of an image that the graph leaves free: the side that most classifiers of
# pictures were trained on. An axis of the batch stays free.
FREE_SIZE = 224
# Values. Shapes have few axes: none is computed from a tensor as large as that.
LARGE_TENSOR = 1024


def drop_declared_sizes(model: onnx.ModelProto) -> None:
    """Deletes all declared sizes except the graph's own inputs, also in functions and inner graphs.

    The free sizes of an image are fixed.

    Args:
        model: changed in place.
    """
    for graph in all_graphs(model):
        del graph.value_info[:]
        # An inner graph's inputs get their sizes from the step around it; the main graph's are all
        # that inference starts from.
        inner_inputs = [] if graph is model.graph else list(graph.input)
        for value in (*graph.output, *inner_inputs):
            _drop_shape(value.type)
    for function in model.functions:
        del function.value_info[:]
    _fix_free_sizes(model.graph)


def written_out(model: onnx.ModelProto) -> onnx.ModelProto:
    """Builds a graph for inference: without declared sizes, with its functions written out.

    Args:
        model: its larger tensors are dropped from it, the rest is copied.

    Raises:
        ValueError: the functions cannot be written out.
    """
    # Inputs that are tensors of the file get the sizes of these, not the declared ones.
    _declare_tensors(model.graph)
    _drop_large_tensors(model.graph)
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    drop_declared_sizes(whole)
    return _inlined(whole) if model.functions else whole


def _inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """Writes out the functions of a graph without declared sizes."""
    try:
        whole = onnx.inliner.inline_local_functions(model)
    except Exception as error:  # the checker's own classes share no base but Exception
        reason = reason_of(error)
        raise ValueError(f"expected functions that can be written out, got {reason}") from error
    # Inlining declares sizes of what functions make: the author's own again.
    for graph in all_graphs(whole):
        del graph.value_info[:]
    return whole


def all_nodes(nodes: Iterator[onnx.NodeProto] | list[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yields nodes, and those of the graphs in them."""
    for node in nodes:
        yield node
        for graph in inner_graphs(node):
            yield from all_nodes(list(graph.node))


def all_graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """Yields the main graph and all that lie in steps of it, of each other and of functions."""
    yield model.graph
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        for node in all_nodes(list(nodes)):
            yield from inner_graphs(node)


def inner_graphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """Yields the graphs that a step holds: branches, bodies of loops."""
    return [
        graph
        for attribute in node.attribute
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs)
    ]


def _drop_shape(kind: onnx.TypeProto) -> None:
    # A type is one of several fields of a protobuf; sequences and optionals hold another type.
    held = kind.WhichOneof("value")
    if held in ("tensor_type", "sparse_tensor_type"):
        getattr(kind, held).ClearField("shape")
    elif held in ("sequence_type", "optional_type"):
        _drop_shape(getattr(kind, held).elem_type)


def _declare_tensors(graph: onnx.GraphProto) -> None:
    """Declares the sizes of inputs that are tensors of the file."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for value in graph.input:
        if value.name in tensors:
            value.CopyFrom(_declared(tensors[value.name]))


def _fix_free_sizes(graph: onnx.GraphProto) -> None:
    """Fixes the free sizes of an image, all axes but the first, to a number."""
    for value in graph.input:
        sizes = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        # Of a picture whose axes are all free, the second one is taken for the channels.
        is_free = len(sizes) == 4 and not any(sizes[1:])
        for axis, dimension in enumerate(value.type.tensor_type.shape.dim):
            if axis and not dimension.dim_value:
                dimension.dim_value = FREE_CHANNELS if axis == 1 and is_free else FREE_SIZE


def _drop_large_tensors(graph: onnx.GraphProto) -> None:
    """Turns a graph's larger tensors into inputs: inference copies all that it is given."""
    kept = []
    # In older files each tensor is declared as an input, too.
    given = {value.name for value in graph.input}
    for tensor in graph.initializer:
        if (
            math.prod(tensor.dims) <= LARGE_TENSOR
            and tensor.data_location != onnx.TensorProto.EXTERNAL
        ):
            kept.append(tensor)
        elif tensor.name not in given:
            graph.input.append(_declared(tensor))
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _declared(tensor: onnx.TensorProto) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
