"""ONNX steps whose answer is not a function of the image: random or dependent on the block."""

from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from wobbliness.classifiers.untrusted.onnx_bounds import full_name
from wobbliness.classifiers.untrusted.onnx_claims import all_graphs, all_nodes

# fmt: off
RANDOM = {
    "Bernoulli", "Multinomial",
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
    # searches of language models, which may sample
    "com.microsoft::Sampling", "com.microsoft::BeamSearch", "com.microsoft::GreedySearch",
    "com.microsoft::WhisperBeamSearch",
}
# fmt: on
TRAINING_INPUT = {  # by operator, the index of its ratio and of the flag that turns it on
    "Dropout": (1, 2),
    "com.microsoft::BitmaskDropout": (1, 2),
    "com.microsoft::BiasDropout": (3, 4),
    "com.microsoft::BitmaskBiasDropout": (3, 4),
}
# The scale is that of the largest value of a whole block, so that each image changes the others.
BLOCK_DEPENDENT = {
    "DynamicQuantizeLinear",
    "com.microsoft::DynamicQuantizeMatMul",
    "com.microsoft::DynamicQuantizeLSTM",
}
# What an exporter computes a flag of training with.
# fmt: off
FOLLOWED = {
    "Identity", "Cast", "Not", "And", "Or", "Xor", "Equal", "Less", "Greater", "LessOrEqual",
    "GreaterOrEqual", "Reshape", "Squeeze", "Unsqueeze", "Add", "Sub", "Mul", "Gather", "Slice",
    "Where", "ReduceMax", "ReduceMin", "ReduceSum",
}
# fmt: on
# Steps from a flag back to the constants that it is computed from, which also bound the recursion;
# values of such a constant.
MAX_STEPS_BACK, MAX_SMALL_VALUES = 30, 64


def check_randomness(model: onnx.ModelProto) -> None:
    """Refuses a graph that draws random numbers or normalises by the statistics of a block.

    It does not matter whether a random value reaches the answer. Dropout is accepted where its flag
    is absent, or is computed from constants alone and false.

    Args:
        model: with its functions written out.

    Raises:
        ValueError: with the operator's name.
    """
    constants: _Constants | None = None
    for node in all_nodes(list(model.graph.node)):
        name = full_name(node)
        if name in RANDOM:
            raise ValueError(f"expected a graph that answers alike each time, got {name}")
        if name == "BatchNormalization" and _has_training_mode(node):
            raise ValueError(
                f"expected a graph that answers alike in any company, got {name} in training mode"
            )
        if name in TRAINING_INPUT:
            # Made on demand: few graphs have such a step.
            constants = constants or _Constants(model)
            if _is_training(node, constants):
                raise ValueError(
                    f"expected a graph that answers alike each time, got {name} in training mode"
                )


def block_dependent_operator(model: onnx.ModelProto) -> str | None:
    """Returns the first operator that makes an image's answer depend on its block; None if none."""
    nodes = (
        node for part in (model.graph, *model.functions) for node in all_nodes(list(part.node))
    )
    return next((full_name(node) for node in nodes if full_name(node) in BLOCK_DEPENDENT), None)


def _has_training_mode(node: onnx.NodeProto) -> bool:
    return any(part.name == "training_mode" and part.i for part in node.attribute)


def _is_training(node: onnx.NodeProto, constants: "_Constants") -> bool:
    ratio, flag = (
        node.input[index] if index < len(node.input) else ""
        for index in TRAINING_INPUT[full_name(node)]
    )
    if not flag:
        return False
    # A ratio of 0 drops nothing; a flag of unknown value may be true.
    is_training, share = constants.value(flag), constants.value(ratio) if ratio else None
    if share is not None and share.size and not share.any():
        return False
    return is_training is None or bool(is_training.any())


class _Constants:
    """A table of small values that need no image, computed on demand."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._opsets = {opset.domain: opset.version for opset in model.opset_import}
        self._makers: dict[str, list[Any]] = {}
        for graph in all_graphs(model):
            for tensor in graph.initializer:
                self._makers.setdefault(tensor.name, []).append(tensor)
            for node in graph.node:
                for name in node.output:
                    self._makers.setdefault(name, []).append(node)

    def value(self, name: str, steps: int = MAX_STEPS_BACK) -> np.ndarray | None:
        """Returns the value of that name.

        Returns None where it is large, depends on the image or its size, or has two makers.
        """
        makers = self._makers.get(name, [])
        # Inner graphs may use a name again: which of the values is meant is not followed.
        if len(makers) != 1 or steps == 0:
            return None
        maker = makers[0]
        if isinstance(maker, onnx.TensorProto):
            return _small(maker)
        if maker.op_type == "Constant":
            return next((_attribute_value(attribute) for attribute in maker.attribute), None)
        return (
            self._computed(maker, steps)
            if maker.op_type in FOLLOWED and maker.domain in ("", "ai.onnx")
            else None
        )

    def _computed(self, node: onnx.NodeProto, steps: int) -> np.ndarray | None:
        given = {}
        for name in filter(None, node.input):
            value = self.value(name, steps - 1)
            if value is None:
                return None
            given[name] = value
        try:
            answers: Any = ReferenceEvaluator(node, opsets=self._opsets).run(None, given)
            return np.asarray(answers[0])
        except Exception:  # what cannot be computed is not known
            return None


def _small(tensor: onnx.TensorProto) -> np.ndarray | None:
    is_here = tensor.data_location != onnx.TensorProto.EXTERNAL
    return (
        onnx.numpy_helper.to_array(tensor)
        if is_here and np.prod(tensor.dims) <= MAX_SMALL_VALUES
        else None
    )


def _attribute_value(attribute: onnx.AttributeProto) -> np.ndarray | None:
    if attribute.HasField("t"):
        return _small(attribute.t)
    value: Any = onnx.helper.get_attribute_value(attribute)
    return np.asarray(value) if np.size(value) <= MAX_SMALL_VALUES else None
