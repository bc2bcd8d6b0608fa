"""The declarations of an ONNX graph about its answer: classes of the labels, and threshold."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from wobbliness.classifiers.signature.outputs import Output, threshold_by_name

# Attributes that list classes, of classifiers and of LabelEncoder.
CLASS_LISTS = (
    "classlabels_int64s",
    "classlabels_ints",
    "classlabels_strings",
    "values_strings",
    "values_int64s",
    "values_tensor",
)
# Steps after which a label is the same label.
PASS_THROUGH = {"Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten"}
TYPES_OF_CLASSES = (onnx.TensorProto.STRING, onnx.TensorProto.INT64, onnx.TensorProto.INT32)
# Steps that take a class from a constant list by its number.
PICKING_OPERATORS = {"ArrayFeatureExtractor", "Gather"}
TO_PROBABILITIES = {"Sigmoid", "HardSigmoid", "Softmax"}


def declared_outputs(
    outputs: Sequence[Any], graph: onnx.GraphProto, batch_size: int | None
) -> list[Output]:
    """Returns the outputs of ONNX Runtime's session.

    Words whose classes the graph lists count as their numbers. A graph for one image at a time may
    leave the axis of the batch out: `(K,)` is `(1, K)`.
    """
    declared = [_declared(output, graph) for output in outputs]
    is_single = [batch_size == 1 and is_without_batch(output.shape) for output in declared]
    return [
        replace(output, shape=(1, *(output.shape or ()))) if single else output
        for output, single in zip(declared, is_single, strict=True)
    ]


def is_without_batch(shape: Sequence[int | None] | None) -> bool:
    """Checks whether an answer to one image is a vector of several values."""
    return shape is not None and len(shape) == 1 and shape[0] not in (1, None)


def classes_of(graph: onnx.GraphProto, name: str) -> np.ndarray | None:
    """Returns the classes that a graph lists for the labels of an output; None where it lists none.

    They are in the order of their scores.

    Operators of ai.onnx.ml list them in an attribute; other graphs pick them from a constant by the
    number of the class.
    """
    for node in _makers(graph, name):
        if node.op_type in PICKING_OPERATORS:
            return _constant(graph, node.input[0])
        if node.op_type not in PASS_THROUGH:
            lists = [
                _values(attribute) for attribute in node.attribute if attribute.name in CLASS_LISTS
            ]
            return next((listed for listed in lists if len(listed)), None)
    return None


def label_numbers(labels: np.ndarray, classes: np.ndarray, limit: int) -> np.ndarray:
    """Converts labels to numbers from 0 on.

    Labels stay as they are where all classes are numbers below the limit; else they become their
    places in the list.

    Raises:
        ValueError: a label is not in the list.
    """
    # Texts have the type object; they and numbers that are no indices become places.
    if classes.dtype != object and classes.min() >= 0 and classes.max() < limit:
        return labels
    is_class = labels.reshape(-1, 1) == classes
    if not is_class.any(axis=1).all():
        raise ValueError(
            f"expected labels among {', '.join(map(str, classes[:5]))}, as the graph lists them, "
            "got others"
        )
    return np.asarray(is_class.argmax(axis=1))


def threshold_of(graph: onnx.GraphProto, name: str, *, has_one_score: bool = False) -> float | None:
    """Returns the threshold of class 1 in an output of one score; None where it is unknown.

    At 0.5 where the last step makes probabilities; else the name decides: 0 for logits, 0.5 for
    probabilities.

    Raises:
        ValueError: it is a softmax over one score.
    """
    # Behind a sigmoid or softmax a column may be picked: what is left is a probability still.
    passing = PASS_THROUGH | PICKING_OPERATORS | {"Slice", "Split", "Transpose"}
    plain = next((node for node in _makers(graph, name) if node.op_type not in PASS_THROUGH), None)
    if plain is not None and plain.op_type == "Softmax" and has_one_score:
        raise ValueError(
            f"expected scores that differ, got {name}: a softmax of one score, which is 1 for "
            "every image"
        )
    last = next((node for node in _makers(graph, name) if node.op_type not in passing), None)
    if last is not None and last.op_type in TO_PROBABILITIES:
        return 0.5
    return threshold_by_name(Output(name=name, dtype="", shape=None))


def _declared(output: Any, graph: onnx.GraphProto) -> Output:
    has_classes = output.type == "tensor(string)" and classes_of(graph, output.name) is not None
    shape = tuple(size if isinstance(size, int) else None for size in output.shape)
    # ONNX Runtime gives an empty shape for a number and for an unknown rank; the graph tells which.
    is_known = shape or any(
        value.name == output.name and value.type.tensor_type.HasField("shape")
        for value in graph.output
    )
    return Output(
        name=output.name,
        dtype="tensor(int64)" if has_classes else output.type,
        shape=shape if is_known else None,
    )


def _makers(graph: onnx.GraphProto, name: str) -> Iterator[onnx.NodeProto]:
    """Yields the node that makes a value, the one that makes its first input, and so on."""
    made_by = {made: node for node in graph.node for made in node.output}
    # A graph of a stranger may run in a circle.
    seen: set[str] = set()
    while name in made_by and name not in seen:
        seen.add(name)
        yield made_by[name]
        given = made_by[name].input
        name = given[0] if given else ""


def _values(attribute: onnx.AttributeProto) -> np.ndarray:
    if attribute.HasField("t"):
        return _texts(numpy_helper.to_array(attribute.t))
    if attribute.strings:
        return np.array(
            [word.decode("utf-8", "replace") for word in attribute.strings], dtype=object
        )
    return np.array(attribute.ints, dtype=np.int64)


def _constant(graph: onnx.GraphProto, name: str) -> np.ndarray | None:
    constants = (node for node in graph.node if node.op_type == "Constant" and name in node.output)
    given = [
        attribute.t
        for node in constants
        for attribute in node.attribute
        if attribute.name == "value"
    ]
    tensors = [*(tensor for tensor in graph.initializer if tensor.name == name), *given]
    is_list = bool(tensors) and tensors[0].data_type in TYPES_OF_CLASSES
    return _texts(numpy_helper.to_array(tensors[0])) if is_list else None


def _texts(values: np.ndarray) -> np.ndarray:
    """Returns a list of classes with bytes decoded."""
    texts = [
        value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        for value in values.ravel()
    ]
    return np.array(texts, dtype=values.dtype)
