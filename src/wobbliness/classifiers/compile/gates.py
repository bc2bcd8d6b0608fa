"""Gates in an ONNX graph: nodes multiplied by further inputs, which come with each image.

The graph takes rows `(B, R)`: the values of an image as the graph took it before, flat, and the
gates of all nodes behind them. So rows go wherever images go. A gate multiplies what its node
gives; the output of a batch normalisation times g is that of scale and shift times g.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from jaxtyping import Float32
from onnx import helper, numpy_helper

from wobbliness.classifiers.compile.session import open_session
from wobbliness.classifiers.signature.onnx_input import OnnxInput
from wobbliness.perturbations.network.gated_nodes import GatedNodes, NodeKind
from wobbliness.runtime.errors import reason_of

# Images that nodes are looked at with, unlike the usual lengths of other axes.
LOOKED_AT = 3
# Of the names that are new in the graph.
PREFIX = "wobbliness."
ROWS, AXIS = f"{PREFIX}rows", f"{PREFIX}axis"
# Slice takes its ends as inputs from here on.
SLICE_OPSET = 10
# Steps whose answer depends on the image's shape alone.
SHAPES = {"Shape", "Size"}


@dataclass(frozen=True, kw_only=True)
class Value:
    """A value of a graph: its name, the shape for one image, and ONNX's number of its type."""

    name: str
    shape: tuple[int, ...]
    dtype: int

    @property
    def size(self) -> int:
        """The number of values for one image."""
        return prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class GatedModel:
    """A graph that takes rows, and the number of gates in each."""

    model: onnx.ModelProto
    num_gates: int


class RowsInput:
    """A callable that converts rows of image values and gates to those that a gated graph takes."""

    def __init__(self, prepare: OnnxInput, image_shape: tuple[int, ...]) -> None:
        """Wraps the conversion of images.

        Args:
            prepare: converts images `(B, *image_shape)` to the input of the graph without gates.
            image_shape: of one image.
        """
        self._prepare, self._shape = prepare, image_shape

    def preprocessing(self) -> dict[str, str]:
        """Describes pixel values and layout, for comparisons."""
        return self._prepare.preprocessing()

    def __call__(self, rows: Float32[np.ndarray, "B R"]) -> Float32[np.ndarray, "B R"]:
        """Converts the image values; the gates stay as they are."""
        num_values = prod(self._shape)
        # The model's own scaling, layout and rounding are for pixel values; gates are none.
        images = self._prepare(rows[:, :num_values].reshape(-1, *self._shape))
        flat = images.reshape(len(rows), -1).astype(np.float32, copy=False)
        # One input of one type, so that rows are cut into blocks and padded as images are.
        return np.concatenate([flat, rows[:, num_values:]], axis=1)


def gated_model(
    model: onnx.ModelProto,
    nodes: GatedNodes,
    images: np.ndarray,
    *,
    image_input: str,
    batch_norms: Sequence[str] | None = None,
    folder: Path | None = None,
) -> GatedModel:
    """Puts a multiplication behind each chosen node of a graph.

    Args:
        model: the graph, which is left as it is.
        nodes: which nodes get a gate.
        images: LOOKED_AT images, or as many as the graph fixes, as it takes them.
        image_input: name of the input.
        batch_norms: names of what batch normalisations give, in their order, where they are
            folded into other nodes; by default those of the graph.
        folder: where the graph's external data is.

    Raises:
        ValueError: the graph has none, or too few, of these nodes, or cannot be run.
    """
    if nodes.kind is NodeKind.BATCH_NORMALISATION:
        # Folded into convolutions, they leave no such operator, only the name of their output.
        names = (
            _outputs_of(model.graph, "BatchNormalization") if batch_norms is None else batch_norms
        )
        values = _normalised(_looked_at(model, names, image_input, images, folder), names, images)
    else:
        values = _residual_sums(model, image_input, images, folder)
    gates = [_gate_of(value, nodes) for value in _chosen(values, nodes)]
    kind = helper.np_dtype_to_tensor_dtype(images.dtype)
    image = Value(name=image_input, shape=images.shape[1:], dtype=kind)
    return GatedModel(
        model=_with_gates(model, image, gates), num_gates=sum(gate.size for gate in gates)
    )


def _outputs_of(graph: onnx.GraphProto, operator: str) -> list[str]:
    # The empty domain is ONNX's own; an operator of another domain may do anything under this name.
    return [node.output[0] for node in graph.node if node.op_type == operator and not node.domain]


def _looked_at(
    model: onnx.ModelProto,
    names: Sequence[str],
    image_input: str,
    images: np.ndarray,
    folder: Path | None,
) -> dict[str, np.ndarray]:
    """Returns some values of a graph for images."""
    # Each name once, since outputs must differ; the values of the input are known already.
    wanted = [name for name in dict.fromkeys(names) if name != image_input]
    if not wanted:
        return {}
    # The runtime returns outputs only, so a copy of the graph declares inner values as such.
    seen = onnx.ModelProto()
    seen.CopyFrom(model)
    del seen.graph.output[:]
    # Types are left to the runtime, which infers them.
    seen.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    session = open_session(seen.SerializeToString(), "the graph with its nodes as outputs", folder)
    try:
        found = session.run(wanted, {image_input: images})
    # ONNX Runtime raises classes of its own that share no base but Exception.
    except Exception as error:
        refused = f"expected images that the graph accepts, got {images.shape} at once"
        raise ValueError(f"{refused}: {reason_of(error)}") from error
    # With the input: a residual sum may add the image itself.
    return {image_input: images, **dict(zip(wanted, found, strict=True))}


def _normalised(
    found: dict[str, np.ndarray], names: Sequence[str], images: np.ndarray
) -> list[Value]:
    """Returns what batch normalisations give.

    Raises:
        ValueError: one of them has another first axis than the batch: an image has no part of it.
    """
    # Patches or time steps that are folded into the batch axis make it longer than the batch.
    other = [found[name].shape for name in names if len(found[name]) != len(images)]
    if other:
        raise ValueError(
            f"expected batch normalisations of {len(images)} rows for as many images, got one of "
            f"shape {other[0]}"
        )
    return [_value(name, found[name]) for name in names]


def _residual_sums(
    model: onnx.ModelProto, image_input: str, images: np.ndarray, folder: Path | None
) -> list[Value]:
    """Returns the sums of two values of one shape that both depend on the image's values."""
    # Biases and position embeddings are added, too, but they are constants.
    on_image = _dependent(model.graph, image_input)
    sums = [
        node
        for node in model.graph.node
        if node.op_type == "Add" and not node.domain and on_image.issuperset(node.input)
    ]
    # Terms as well as sums: shapes are known only from a run on images.
    names = [name for node in sums for name in (*node.input, node.output[0])]
    found = _looked_at(model, names, image_input, images, folder)
    return [
        _value(node.output[0], found[node.output[0]])
        for node in sums
        if _is_residual([found[name] for name in (*node.input, node.output[0])], len(images))
    ]


def _is_residual(terms_and_sum: list[np.ndarray], num_images: int) -> bool:
    total = terms_and_sum[-1]
    # A term that is broadcast is no skip connection, which adds a value for each value.
    has_one_shape = len({each.shape for each in terms_and_sum}) == 1
    return has_one_shape and total.dtype.kind == "f" and total.ndim > 1 and len(total) == num_images


def _dependent(graph: onnx.GraphProto, image_input: str) -> set[str]:
    """Returns the names of all values that depend on the image, and not on its shape alone."""
    names = {image_input}
    # In the order of the computation, as nodes of a graph are.
    for node in graph.node:
        # Bodies of If and Loop read outer values that are not among the inputs: taken as dependent.
        has_graphs = any(attribute.HasField("g") for attribute in node.attribute)
        # An empty name stands for an optional value that is left out, and links no nodes.
        if node.op_type not in SHAPES and (has_graphs or names.intersection(node.input) - {""}):
            names.update(node.output)
    return names


def _value(name: str, seen: np.ndarray) -> Value:
    return Value(name=name, shape=seen.shape[1:], dtype=helper.np_dtype_to_tensor_dtype(seen.dtype))


def _chosen(values: list[Value], nodes: GatedNodes) -> list[Value]:
    """Returns the values that get gates.

    Raises:
        ValueError: there are none, or fewer than asked for.
    """
    # Without a gate nothing would be perturbed, and W would be 0 for every image.
    wanted = 1 if nodes.last is None else nodes.last
    if len(values) < wanted:
        raise ValueError(
            f"expected a network with at least {wanted} {nodes.kind.value}"
            f"{'s' if wanted > 1 else ''} in its graph, got {len(values)}"
        )
    # Nodes of a graph are in topological order: the last ones are those next to the output.
    return values if nodes.last is None else values[-nodes.last :]


def _gate_of(value: Value, nodes: GatedNodes) -> Value:
    # Lengths of 1 broadcast: one gate scales all that a node gives.
    shape = value.shape if nodes.has_gate_for_each_value else (1,) * len(value.shape)
    return Value(name=value.name, shape=shape, dtype=value.dtype)


def _with_gates(model: onnx.ModelProto, image: Value, gates: Sequence[Value]) -> onnx.ModelProto:
    """Returns a graph of rows in place of images."""
    gated = onnx.ModelProto()
    gated.CopyFrom(model)
    graph = gated.graph
    # Both spellings stand for the operators of ONNX itself.
    opset = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    split = list(_split([image, *map(_input_of, gates)], has_slices=opset >= SLICE_OPSET))
    behind = [each for node in graph.node for each in _gated_node(node, {g.name for g in gates})]
    del graph.node[:]
    # The cuts go first, as nodes have to be in topological order.
    graph.node.extend([*split, *behind])
    # Other inputs are tensors of the file, as old files list them.
    others = [value for value in graph.input if value.name != image.name]
    del graph.input[:]
    num_values = image.size + sum(gate.size for gate in gates)
    rows = helper.make_tensor_value_info(ROWS, onnx.TensorProto.FLOAT, [None, num_values])
    graph.input.extend([rows, *others])
    return gated


def _input_of(gate: Value) -> Value:
    return Value(name=f"{PREFIX}gate.{gate.name}", shape=gate.shape, dtype=gate.dtype)


def _gated_node(node: onnx.NodeProto, gated: set[str]) -> Iterator[onnx.NodeProto]:
    """Yields a node, and the multiplication of what it gives.

    The product has the name that the node's output had, so that whoever takes it stays as it is.
    """
    names = [name for name in node.output if name in gated]
    renamed = onnx.NodeProto()
    renamed.CopyFrom(node)
    renamed.output[:] = [f"{PREFIX}{name}" if name in gated else name for name in node.output]
    yield renamed
    for name in names:
        yield helper.make_node("Mul", [f"{PREFIX}{name}", f"{PREFIX}gate.{name}"], [name])


def _split(parts: Sequence[Value], *, has_slices: bool) -> Iterator[onnx.NodeProto]:
    """Yields the steps that cut rows into parts, each in its shape and type."""
    yield _constant(AXIS, [1])
    start = 0
    for number, part in enumerate(parts):
        flat, shaped, shape = (f"{PREFIX}{kind}.{number}" for kind in ("flat", "shaped", "shape"))
        ends = {"starts": [start], "ends": [start + part.size]}
        yield from _slice(flat, ends) if has_slices else [_old_slice(flat, ends)]
        # A length of 0 stands for that of the rows: the batch.
        yield _constant(shape, [0, *part.shape])
        yield helper.make_node("Reshape", [flat, shape], [shaped])
        # Rows are float32; a graph of another type gets both values and gates in its own.
        yield helper.make_node("Cast", [shaped], [part.name], to=part.dtype)
        start += part.size


def _slice(name: str, ends: dict[str, list[int]]) -> Iterator[onnx.NodeProto]:
    for kind, values in ends.items():
        yield _constant(f"{name}.{kind}", values)
    yield helper.make_node("Slice", [ROWS, f"{name}.starts", f"{name}.ends", AXIS], [name])


def _old_slice(name: str, ends: dict[str, list[int]]) -> onnx.NodeProto:
    attributes: dict[str, Any] = {"axes": [1], **ends}
    return helper.make_node("Slice", [ROWS], [name], **attributes)


def _constant(name: str, values: list[int]) -> onnx.NodeProto:
    # A node, not a tensor of the file: old files list those among their inputs, too.
    tensor = numpy_helper.from_array(np.array(values, np.int64))
    return helper.make_node("Constant", [], [name], value=tensor)
