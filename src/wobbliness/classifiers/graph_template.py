"""One export for modules that differ in their numbers only: the graph without these, and how they come back into it."""

from collections.abc import Mapping
from dataclasses import dataclass

import onnx
import torch
from onnx import numpy_helper


@dataclass(frozen=True, kw_only=True)
class GraphTemplate:
    """An exported graph whose tensors from the module are left empty.

    Attributes:
        content: the serialised graph.
        shapes: type and shape of each of the module's tensors, by its name in module and graph alike.
    """

    content: bytes
    shapes: Mapping[str, tuple[torch.dtype, torch.Size]]

    def filled(self, tensors: Mapping[str, torch.Tensor]) -> onnx.ModelProto:
        """The graph of another module.

        Args:
            tensors: its `state_dict()`.

        Raises:
            ValueError: names, types or shapes are not those of the module that was exported.
        """
        if _shapes(tensors) != self.shapes:
            raise ValueError(f"expected tensors {', '.join(self.shapes)} of the exported module's shapes, got other ones")
        model: onnx.ModelProto = onnx.ModelProto.FromString(self.content)
        for initializer in model.graph.initializer:
            if initializer.name in tensors:
                initializer.raw_data = _raw(tensors[initializer.name])
        return model


def template_of(model: onnx.ModelProto, tensors: Mapping[str, torch.Tensor]) -> GraphTemplate | None:
    """The template of an exported graph.

    Args:
        model: what the exporter made.
        tensors: `state_dict()` of the module it was made of.

    Returns:
        None where one of the tensors is not in the graph bit for bit: the exporter folds some into others, for example batch
        normalisation into the convolution before it.
    """
    emptied = onnx.ModelProto()
    emptied.CopyFrom(model)
    kept = {initializer.name: initializer for initializer in emptied.graph.initializer}
    for name, tensor in tensors.items():
        if name not in kept or kept[name].raw_data != _raw(tensor):
            return None
        kept[name].raw_data = b""
    return GraphTemplate(content=emptied.SerializeToString(), shapes=_shapes(tensors))


def _shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[torch.dtype, torch.Size]]:
    return {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}


def _raw(tensor: torch.Tensor) -> bytes:
    """The bytes of a tensor as the format wants them: in the order of its axes, little-endian."""
    content: bytes = numpy_helper.from_array(tensor.detach().cpu().contiguous().numpy()).raw_data
    return content
