"""A template of an exported graph, for modules that differ only in their numbers."""

from collections.abc import Mapping
from dataclasses import dataclass

import onnx
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import numpy_helper


@dataclass(frozen=True, kw_only=True)
class GraphTemplate:
    """An exported graph whose tensors of the module are empty but keep their names and shapes.

    Attributes:
        content: the serialised graph, which may be stored in a file.
    """

    content: bytes

    def filled(self, tensors: Mapping[str, torch.Tensor]) -> onnx.ModelProto:
        """Fills the template with the tensors of a module.

        Args:
            tensors: its `state_dict()`.

        Raises:
            ValueError: the content is no graph; or names, types or shapes are not those of the
                module that was exported.
        """
        try:
            model: onnx.ModelProto = onnx.ModelProto.FromString(self.content)
        except DecodeError as error:
            raise ValueError("expected a serialised graph") from error
        # The tensors of the module were emptied; all others of the graph are the exporter's own.
        initializers = model.graph.initializer
        empty = {tensor.name: tensor for tensor in initializers if not tensor.HasField("raw_data")}
        given = {name: _as_onnx(tensor) for name, tensor in tensors.items()}
        if _shapes(empty) != _shapes(given):
            raise ValueError(
                f"expected tensors {', '.join(empty)} of the exported module's shapes, got other "
                "ones"
            )
        for name, initializer in empty.items():
            initializer.raw_data = given[name].raw_data
        return model


def _as_onnx(tensor: torch.Tensor) -> onnx.TensorProto:
    return numpy_helper.from_array(tensor.detach().cpu().contiguous().numpy())


def template_of(
    model: onnx.ModelProto, tensors: Mapping[str, torch.Tensor]
) -> GraphTemplate | None:
    """Makes the template of an exported graph.

    Args:
        model: what the exporter made.
        tensors: `state_dict()` of the module it was made of.

    Returns:
        None where one of the tensors is not in the graph bit for bit: the exporter folds some into
        others, for example batch normalisation into the convolution before it.
    """
    emptied = onnx.ModelProto()
    emptied.CopyFrom(model)
    for initializer in emptied.graph.initializer:
        if initializer.name in tensors:
            initializer.ClearField("raw_data")
    template = GraphTemplate(content=emptied.SerializeToString())
    # The template is valid if the module's own tensors give back the exported graph bit for bit.
    try:
        return template if template.filled(tensors) == model else None
    except ValueError:  # some are not there at all
        return None


def _shapes(tensors: Mapping[str, onnx.TensorProto]) -> dict[str, tuple[int, tuple[int, ...]]]:
    return {name: (tensor.data_type, tuple(tensor.dims)) for name, tensor in tensors.items()}
