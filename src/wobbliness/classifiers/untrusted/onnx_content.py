"""Checks of an ONNX file's content before a runtime sees it, in a few times the file's memory.

A graph is operators and numbers, and no code of its author's. But a runtime reads the files that a
graph points to, loads the operators that it asks for and makes the constants that it describes.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from wobbliness.classifiers.untrusted.file_kind import MAX_FILE_BYTES
from wobbliness.classifiers.untrusted.onnx_claims import all_graphs, all_nodes
from wobbliness.runtime.errors import reason_of
from wobbliness.runtime.input_files import found_instead

# Of the operators that come with ONNX Runtime; any other domain needs a library of its author's.
TRUSTED_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}
# Of com.microsoft: a compiled context points to a file, the others call Python or other libraries.
REFUSED_OPERATORS = {"EPContext", "PyOp", "PythonOp", "ATen", "Snpe"}
# Characters of a value's or step's name: functions that are written out repeat them in every copy.
MAX_NAME = 2000
# Bytes of all functions when each call is written out, which a small file may need any number of:
# in a chain of ten functions that call the next one ten times each, the last is called 10^9 times.
MAX_WRITTEN_BYTES = 2**28
# Nodes, likewise; graphs of classifiers have some thousands.
MAX_STEPS = 10**6
# Functions within functions. It bounds the recursion of the count below, too.
MAX_CALL_DEPTH = 100
# Bits of the types whose values share bytes; all others take whole bytes.
BITS = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}
# Fields of a tensor that hold its values one by one, where it has no `raw_data`.
FIELDS = ("float_data", "double_data", "int32_data", "int64_data", "uint64_data", "string_data")

FunctionName: TypeAlias = tuple[str, str, str]
"""The domain, name and overload of a function, which identify it in a file."""


@dataclass(frozen=True, kw_only=True)
class CheckedGraph:
    """An ONNX file that a runtime may open.

    Attributes:
        content: of the file.
        model: the parsed graph, without its external data.
        folder: where its external data is looked for.
    """

    content: bytes
    model: onnx.ModelProto
    folder: Path


def read_checked(path: Path) -> CheckedGraph:
    """Reads and checks an ONNX file.

    External data is a file in the graph's own folder. Where the graph is a link as the hub's cache
    has them, it may be a link into the same cache, too.

    Raises:
        ValueError: it cannot be read; a tensor is larger than the file's numbers; external data
            lies outside the file's folder; operators do not come with the runtime; functions call
            each other in circles or explode when written out.
    """
    content = path.read_bytes()
    model = _parsed(content, path)
    try:
        _check_operators(model)
        _check_functions(model)
        cache = _hub_cache(path)
        is_moved = _check_tensors(model, path.parent, cache)
    except ValueError as error:
        raise ValueError(f"{error}, in {path}") from error
    # Names of external data have changed: the runtime has to read the graph as it is now.
    if cache is not None and is_moved:
        return CheckedGraph(content=model.SerializeToString(), model=model, folder=cache)
    return CheckedGraph(content=content, model=model, folder=path.parent)


def _parsed(content: bytes, path: Path) -> onnx.ModelProto:
    """Parses a file without its external data, so that no other file is read yet."""
    try:
        return onnx.load_model_from_string(content)
    except DecodeError as error:
        raise ValueError(
            f"expected a readable ONNX file, got {path}: {reason_of(error)}"
        ) from error


def external_files(path: Path) -> list[Path]:
    """Returns the files that hold external data of a checked ONNX file, sorted by name."""
    tensors = _tensors(onnx.load_model_from_string(path.read_bytes()))
    outside = [tensor for tensor in tensors if tensor.data_location == onnx.TensorProto.EXTERNAL]
    return sorted({_external_file(tensor, path.parent, _hub_cache(path)) for tensor in outside})


def _hub_cache(path: Path) -> Path | None:
    """Returns a model's folder in the hub's cache if the file is one of its links.

    These lead from `snapshots/.../name` into `blobs`.
    """
    cache = path.resolve().parent.parent
    is_of_hub = path.is_symlink() and path.resolve().parent == cache / "blobs"
    return (
        cache if is_of_hub and path.parent.resolve().is_relative_to(cache / "snapshots") else None
    )


def _everywhere(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    yield from all_nodes(list(model.graph.node))
    for function in model.functions:
        yield from all_nodes(list(function.node))


def _check_operators(model: onnx.ModelProto) -> None:
    own = {(function.domain, function.name) for function in model.functions}
    for node in _everywhere(model):
        _check_names(node)
        name = f"{node.domain}::{node.op_type}"
        # A call of one of the file's own functions, whose steps are checked where they stand.
        if (node.domain, node.op_type) in own:
            continue
        if node.domain not in TRUSTED_DOMAINS or (
            node.domain and node.op_type in REFUSED_OPERATORS
        ):
            raise ValueError(
                f"expected operators that come with ONNX Runtime, got the custom operator {name}"
            )


def _check_names(node: onnx.NodeProto) -> None:
    names = (node.name, node.op_type, node.domain, *node.input, *node.output)
    if max(map(len, names)) > MAX_NAME:
        raise ValueError(
            f"expected names of at most {MAX_NAME} characters, got a longer one at "
            f"{node.op_type[:80]!r}"
        )


def _check_functions(model: onnx.ModelProto) -> None:
    """Limits a graph with all its functions written out to MAX_STEPS and MAX_WRITTEN_BYTES.

    None may call itself, or take the place of an operator that comes with the runtime.
    """
    for function in model.functions:
        if function.domain in TRUSTED_DOMAINS:
            raise ValueError(
                f"expected functions in domains of their own, got {function.name[:80]!r} among the "
                "operators of ONNX Runtime"
            )
    steps, size = _WrittenFunctions(model).count(list(model.graph.node), frozenset())
    if steps > MAX_STEPS:
        raise ValueError(
            f"expected a graph of at most {MAX_STEPS} steps, got {steps} when its functions are "
            "written out"
        )
    if size > MAX_WRITTEN_BYTES:
        raise ValueError(
            f"expected functions of at most {MAX_WRITTEN_BYTES} bytes when they are written out, "
            f"got {size}"
        )


class _WrittenFunctions:
    """The steps and bytes of a file's functions when every call is written out."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._functions: dict[FunctionName, onnx.FunctionProto] = {
            (function.domain, function.name, function.overload): function
            for function in model.functions
        }
        # Each function is counted once, with those that it calls: the time is that of the file's
        # size, whatever the size of what it would be written out to.
        self._found: dict[FunctionName, tuple[int, int]] = {}

    def count(
        self, nodes: list[onnx.NodeProto], callers: frozenset[FunctionName]
    ) -> tuple[int, int]:
        """Counts the steps of nodes and the bytes of the functions that they call.

        Args:
            nodes: of the graph or of a function.
            callers: the functions on the way to them: a call of one of these is a circle.
        """
        parts = [self._count_call(node, callers) for node in all_nodes(nodes)]
        return sum(steps for steps, _ in parts), sum(size for _, size in parts)

    def _count_call(
        self, node: onnx.NodeProto, callers: frozenset[FunctionName]
    ) -> tuple[int, int]:
        name = (node.domain, node.op_type, node.overload)
        if name in callers or len(callers) > MAX_CALL_DEPTH:
            raise ValueError(
                f"expected functions that do not call themselves, got {'::'.join(name[:2])[:80]}"
            )
        if name in self._functions and name not in self._found:
            function = self._functions[name]
            steps, size = self.count(list(function.node), callers | {name})
            self._found[name] = steps, size + function.ByteSize()
        # Anything that is no function is one step, whose bytes are those of its caller.
        return self._found.get(name, (1, 0))


def _check_tensors(model: onnx.ModelProto, folder: Path, cache: Path | None) -> bool:
    """Checks every tensor; returns whether there is external data.

    External data is then renamed as seen from the hub's cache, if any.
    """
    # By file: several tensors may lie in one.
    sizes: dict[Path, int] = {}
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            path = _external_file(tensor, folder, cache)
            _check_external(tensor, path, sizes)
            if cache is not None:
                _rename_external(tensor, path.relative_to(cache).as_posix())
        else:
            _check_stored(tensor)
    if sum(sizes.values()) > MAX_FILE_BYTES:
        raise ValueError(
            f"expected external data of at most {MAX_FILE_BYTES} bytes, got {sum(sizes.values())}"
        )
    return bool(sizes)


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    for graph in all_graphs(model):
        # A sparse tensor of a few values may stand for a dense one of any size.
        if graph.sparse_initializer:
            raise ValueError(f"expected dense tensors, got a sparse one in {graph.name[:80]!r}")
        yield from graph.initializer
    for node in _everywhere(model):
        for attribute in node.attribute:
            yield from attribute.tensors
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                raise ValueError(f"expected dense constants, got a sparse one in {node.op_type}")


def _num_values(tensor: onnx.TensorProto) -> int:
    if any(size < 0 for size in tensor.dims):
        raise ValueError(
            f"expected a tensor of a known size, got {list(tensor.dims)} for {tensor.name!r}"
        )
    return math.prod(tensor.dims)


def _check_stored(tensor: onnx.TensorProto) -> None:
    """Checks that a tensor in the file has all its values: a runtime would make missing ones."""
    declared, stored = _num_values(tensor), _num_stored(tensor)
    if declared > stored:
        raise ValueError(
            f"expected a tensor as large as it declares, got {stored} of {declared} values for "
            f"{tensor.name!r}"
        )


def _num_stored(tensor: onnx.TensorProto) -> int:
    """Returns the number of values that the bytes of a tensor can hold."""
    bits = _bits(tensor.data_type)
    if tensor.HasField("raw_data"):
        return 8 * len(tensor.raw_data) // bits
    # Of types below 8 bits one number of a field holds the values of a byte; of others one value.
    return sum(len(getattr(tensor, field)) for field in FIELDS) * 8 // min(8, bits)


def _external_file(tensor: onnx.TensorProto, folder: Path, cache: Path | None) -> Path:
    """Returns the file of external data, links followed; ValueError if outside or missing."""
    location = _entries(tensor).get("location", "")
    path, is_inside = (folder / location).resolve(), _is_inside(folder / location, folder, cache)
    refused = f"expected external data in a file of the graph's own folder, got {location[:200]!r}"
    if not location or Path(location).is_absolute() or not is_inside:
        raise ValueError(refused)
    if not path.exists():
        raise ValueError(
            f"{refused}, which does not exist; the weights are in that file: put it beside the "
            "graph"
        )
    if not path.is_file():
        raise ValueError(f"{refused}, {found_instead(path)}")
    return path


def _is_inside(named: Path, folder: Path, cache: Path | None) -> bool:
    """Checks whether a file lies in the graph's folder once all links are followed.

    In the hub's cache, a name in that folder may be a link to one of the model's blobs.
    """
    path = named.resolve()
    return path.is_relative_to(folder.resolve()) or (
        cache is not None and path.parent == cache / "blobs" and _is_within(named, folder)
    )


def _entries(tensor: onnx.TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _is_within(named: Path, folder: Path) -> bool:
    """Checks whether a name leads into the folder before its last link is followed."""
    return named.parent.resolve().is_relative_to(folder.resolve())


def _rename_external(tensor: onnx.TensorProto, location: str) -> None:
    for entry in tensor.external_data:
        if entry.key == "location":
            entry.value = location


def _check_external(tensor: onnx.TensorProto, path: Path, sizes: dict[Path, int]) -> None:
    """Checks that the file of external data is long enough."""
    entries = _entries(tensor)
    location = entries["location"]
    sizes[path] = path.stat().st_size
    offset = int(entries.get("offset") or 0)
    # Rounded up to whole bytes, for types that share them.
    needed = -(-_num_values(tensor) * _bits(tensor.data_type) // 8)
    # Without a length the data goes on to the end of the file.
    length = int(entries.get("length") or sizes[path] - offset)
    if offset < 0 or needed > length or offset + length > sizes[path]:
        raise ValueError(
            f"expected {needed} bytes of external data at {offset}, got {sizes[path]} in all in "
            f"{location!r}"
        )


def _bits(data_type: int) -> int:
    try:
        name = onnx.TensorProto.DataType.Name(data_type)
        # Texts are counted, not measured: each of a tensor's texts is one of its values.
        return BITS.get(name) or (
            8 if name == "STRING" else 8 * onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize
        )
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"expected tensors of a known type, got type {data_type}") from None
