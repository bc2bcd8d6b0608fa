"""What an ONNX file may not hold: refused before a runtime sees it, in memory of a few times the file's size.

A graph is operators and numbers, and no code of its author's. But a runtime reads the files that a graph points to, loads the
operators that it asks for and makes the constants that it describes.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from wobbliness.classifiers.model_file import MAX_FILE_BYTES

TRUSTED_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}  # operators that come with ONNX Runtime
REFUSED_OPERATORS = {"EPContext", "PyOp", "PythonOp", "ATen"}  # of com.microsoft: they point to files or code of others
MAX_STEPS = 10**6  # nodes, when functions that call functions are written out
BITS = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}  # of types that share bytes


def read_checked(path: Path) -> tuple[bytes, onnx.ModelProto]:
    """The content of an ONNX file, and what it says, without its external data.

    Raises:
        ValueError: it cannot be read; a tensor is larger than the file's numbers; external data lies outside the file's folder;
            operators do not come with the runtime; functions call each other in circles or explode when written out.
    """
    content = path.read_bytes()
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise ValueError(f"expected a readable ONNX file, got {path}: {error}") from error
    try:
        _check_operators(model)
        _check_functions(model)
        _check_tensors(model, path.parent)
    except ValueError as error:
        raise ValueError(f"{error}, in {path}") from error
    return content, model


def all_nodes(nodes: Iterator[onnx.NodeProto] | list[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Nodes, and those of the graphs in them."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from all_nodes(list(graph.node))


def _everywhere(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    yield from all_nodes(list(model.graph.node))
    for function in model.functions:
        yield from all_nodes(list(function.node))


def _check_operators(model: onnx.ModelProto) -> None:
    own = {(function.domain, function.name) for function in model.functions}
    for node in _everywhere(model):
        name = f"{node.domain}::{node.op_type}"
        if (node.domain, node.op_type) in own:
            continue
        if node.domain not in TRUSTED_DOMAINS or (node.domain and node.op_type in REFUSED_OPERATORS):
            raise ValueError(f"expected operators that come with ONNX Runtime, got the custom operator {name}")


def _check_functions(model: onnx.ModelProto) -> None:
    """Steps after all functions are written out, at most MAX_STEPS; none may call itself."""
    functions = {(function.domain, function.name): function for function in model.functions}
    steps: dict[tuple[str, str], int] = {}

    def count(nodes: list[onnx.NodeProto], callers: frozenset[tuple[str, str]]) -> int:
        return sum(count_call((node.domain, node.op_type), callers) for node in all_nodes(nodes))

    def count_call(name: tuple[str, str], callers: frozenset[tuple[str, str]]) -> int:
        if name in callers or len(callers) > 100:
            raise ValueError(f"expected functions that do not call themselves, got {'::'.join(name)}")
        if name in functions and name not in steps:
            steps[name] = count(list(functions[name].node), callers | {name})
        return steps.get(name, 1)

    total = count(list(model.graph.node), frozenset())
    if total > MAX_STEPS:
        raise ValueError(f"expected a graph of at most {MAX_STEPS} steps, got {total} when its functions are written out")


def _check_tensors(model: onnx.ModelProto, folder: Path) -> None:
    sizes: dict[Path, int] = {}
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _check_external(tensor, folder, sizes)
        else:
            _check_stored(tensor)
    if sum(sizes.values()) > MAX_FILE_BYTES:
        raise ValueError(f"expected external data of at most {MAX_FILE_BYTES} bytes, got {sum(sizes.values())}")


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    for graph in _graphs(model):
        yield from graph.initializer
        yield from (part for sparse in graph.sparse_initializer for part in (sparse.values, sparse.indices))
    for node in _everywhere(model):
        for attribute in node.attribute:
            yield from attribute.tensors
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                raise ValueError(f"expected dense constants, got a sparse one in {node.op_type}")


def _graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    yield model.graph
    for node in _everywhere(model):
        for attribute in node.attribute:
            yield from ([attribute.g] if attribute.HasField("g") else [])
            yield from attribute.graphs


def _num_values(tensor: onnx.TensorProto) -> int:
    if any(size < 0 for size in tensor.dims):
        raise ValueError(f"expected a tensor of a known size, got {list(tensor.dims)} for {tensor.name!r}")
    return math.prod(tensor.dims)


def _check_stored(tensor: onnx.TensorProto) -> None:
    declared, fields = (
        _num_values(tensor),
        ("float_data", "double_data", "int32_data", "int64_data", "uint64_data", "string_data"),
    )
    if tensor.HasField("raw_data"):
        stored = 8 * len(tensor.raw_data) // _bits(tensor.data_type)
    else:
        stored = sum(len(getattr(tensor, field)) for field in fields) * 8 // min(8, _bits(tensor.data_type))
    if declared > stored:
        raise ValueError(f"expected a tensor as large as it declares, got {stored} of {declared} values for {tensor.name!r}")


def _check_external(tensor: onnx.TensorProto, folder: Path, sizes: dict[Path, int]) -> None:
    """The file lies in the folder of the graph, links followed, and is as long as it has to be."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    inside, path = folder.resolve(), (folder / location).resolve()
    if not location or Path(location).is_absolute() or not path.is_relative_to(inside) or not path.is_file():
        raise ValueError(f"expected external data in a file of the graph's own folder, got {location!r}")
    sizes[path] = path.stat().st_size
    offset, needed = int(entries.get("offset") or 0), -(-_num_values(tensor) * _bits(tensor.data_type) // 8)
    length = int(entries.get("length") or sizes[path] - offset)
    if offset < 0 or needed > length or offset + length > sizes[path]:
        raise ValueError(f"expected {needed} bytes of external data at {offset}, got {sizes[path]} in all in {location!r}")


def _bits(data_type: int) -> int:
    try:
        name = onnx.TensorProto.DataType.Name(data_type)
        return BITS.get(name) or (8 if name == "STRING" else 8 * onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize)
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"expected tensors of a known type, got type {data_type}") from None
