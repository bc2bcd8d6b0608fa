"""Small networks and the model files that tests open."""

import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from wobbliness.classifiers.compile import export as compiled
from wobbliness.runtime.process_state import quiet_thread
from wobbliness.study.training.networks import build_network

CHANNELS, SIDE, NUM_CLASSES = 3, 16, 5


class ChannelsLast(torch.nn.Module):
    """Takes (B, H, W, C)."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network(images.permute(0, 3, 1, 2))


class Labels(torch.nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network(images).argmax(dim=1)


def make_network():
    network = build_network("small_cnn", (CHANNELS, SIDE, SIDE), NUM_CLASSES, seed=3)
    with torch.no_grad():
        # so that classes are close
        network[-1].bias -= network(torch.full((1, CHANNELS, SIDE, SIDE), 0.5))[0]
    return network.eval()


def save_onnx(module, path, example, *, fixed=False):
    shapes = None if fixed else ({0: torch.export.Dim("batch")},)
    with quiet_thread(*compiled.EXPORTERS):
        torch.onnx.export(
            module, (example,), str(path), dynamo=True, dynamic_shapes=shapes, verbose=False
        )
    return path


def save_exported(module, path, example, *, fixed=False):
    shapes = None if fixed else ({0: torch.export.Dim("batch")},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(module, (example,), dynamic_shapes=shapes), path)
    return path


def save_vit(folder, *, side=SIDE, **settings):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=side,
        patch_size=8,
        num_labels=5,
    )
    torch.manual_seed(0)
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    processor = transformers.ViTImageProcessorPil(size={"height": side, "width": side}, **settings)
    processor.save_pretrained(folder)
    return folder


def linear_model(path, weights):
    """scores = flatten(images) @ weights, as an ONNX file with a free batch axis."""
    num_features, num_classes = weights.shape
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["images"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["scores"]),
        ],
        "linear",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", num_classes])],
        [
            helper.make_tensor(
                "weights",
                TensorProto.FLOAT,
                [num_features, num_classes],
                weights.astype(np.float32).ravel(),
            )
        ],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )


def endless_steps(path, repeats=10**7):
    """A graph of one Scan whose tiny step takes minutes, in one call of C++."""
    step = helper.make_graph(
        [helper.make_node("Add", ["value", "tick"], ["next"])],
        "step",
        [
            helper.make_tensor_value_info("value", TensorProto.FLOAT, ["batch", 64]),
            helper.make_tensor_value_info("tick", TensorProto.FLOAT, []),
        ],
        [helper.make_tensor_value_info("next", TensorProto.FLOAT, ["batch", 64])],
    )
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["images"], ["flat"]),
            helper.make_node("ConstantOfShape", ["repeats"], ["ticks"], value=one),
            helper.make_node("Scan", ["flat", "ticks"], ["scores"], body=step, num_scan_inputs=1),
        ],
        "endless",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor("repeats", TensorProto.INT64, [1], [repeats])],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )
