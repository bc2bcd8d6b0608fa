"""ONNX graphs and files, node by node."""

import numpy as np
from onnx import TensorProto, helper

SIDE = 8
OPSETS = [helper.make_opsetid("", 17)]
DOMAINS = ("com.microsoft", "ai.onnx.ml")


def graph_file(path, nodes, tensors=(), *, domains=(), functions=(), shape=(None, 1, 8, 8)):
    graph = helper.make_graph(
        list(nodes),
        "hostile",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        list(tensors),
    )
    opsets = [*OPSETS, *(helper.make_opsetid(domain, 1) for domain in domains)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=list(functions))
    path.write_bytes(model.SerializeToString())
    return path


def constant(name, values):
    values = np.asarray(values)
    kind = TensorProto.INT64 if values.dtype.kind == "i" else TensorProto.FLOAT
    return helper.make_tensor(name, kind, values.shape, values.ravel())


def declared(name, shape=(1,), kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def graph_of(
    nodes,
    tensors=(),
    *,
    claims=(),
    output=None,
    functions=(),
    opset=17,
    domains=(),
    shape=(None, 1, SIDE, SIDE),
):
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [declared("x", list(shape))],
        [declared("y", output)],
        list(tensors),
        value_info=list(claims),
    )
    opsets = [
        helper.make_opsetid("", opset),
        *(helper.make_opsetid(domain, 1) for domain in (*DOMAINS, *domains)),
    ]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=list(functions))


def save(path, *arguments, **options):
    path.write_bytes(graph_of(*arguments, **options).SerializeToString())
    return path


def node(operator, inputs, outputs=("big",), **attributes):
    return helper.make_node(operator, list(inputs), list(outputs), **attributes)


def branch(nodes, output, *, kind=TensorProto.FLOAT, inputs=(), claims=(), shape=None):
    outputs = [
        declared(name, shape, kind) for name in ([output] if isinstance(output, str) else output)
    ]
    return helper.make_graph(nodes, "branch", list(inputs), outputs, value_info=list(claims))
