"""Small networks with batch normalisations and residual sums."""

import copy

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from wobbliness.study.training.networks import BasicBlock

PICTURE, NUM_CLASSES = (3, 8, 8), 4


def residual_network(seed=0, channels=3):
    """Six batch normalisations with statistics of their own, two sums, four classes."""
    network = nn.Sequential(
        *(nn.Conv2d(channels, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU()),
        *(BasicBlock(4, 4, 1), BasicBlock(4, 8, 2)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, NUM_CLASSES)),
    )
    return balanced(network, seed, channels)


def chain(seed=0):
    """Two batch normalisations, none behind a sum."""
    layers = (
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
    )
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, NUM_CLASSES))
    return balanced(nn.Sequential(*layers, *head), seed)


def balanced(network, seed, channels=3):
    """Draws statistics, and shifts and scales the scores so that many images are undecided."""
    rng = torch.Generator().manual_seed(seed)
    images = torch.rand((64, channels, *PICTURE[1:]), generator=rng)
    with torch.no_grad():
        for part in network.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                part.running_mean.uniform_(-0.3, 0.3, generator=rng)
                part.running_var.uniform_(0.1, 0.5, generator=rng)
                part.weight.uniform_(0.5, 1.5, generator=rng)
                part.bias.uniform_(-0.5, 0.5, generator=rng)
            elif isinstance(part, nn.Conv2d | nn.Linear):
                part.weight.normal_(0, 1 / np.sqrt(part.weight[0].numel()), generator=rng)
        scores = network.eval()(images)
        network[-1].weight /= scores.std(dim=0, keepdim=True).T
        network[-1].bias.zero_()
        network[-1].bias -= network(images).mean(dim=0)
    return network


def batch_norms(network):
    return [part for part in network.modules() if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d)]


def amplified(network, layers, factor):
    """The published way: a deep copy whose last layers have other numbers."""
    member = copy.deepcopy(network)
    with torch.no_grad():
        for part in batch_norms(member)[-layers:]:
            part.weight *= factor
            part.bias *= factor
    return member


def linear_graph(path, nodes, tensors, *, width, opset=17, kind=TensorProto.FLOAT, batch=None):
    """A file of a graph from `x` `(B, width)` to `y`."""
    graph = helper.make_graph(
        [helper.make_node(*node) for node in nodes],
        "linear",
        [helper.make_tensor_value_info("x", kind, [batch, width])],
        [helper.make_tensor_value_info("y", kind, [batch, None])],
        [numpy_helper.from_array(values, name) for name, values in tensors.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def linear_residual(path, first, last, **options):
    """Scores (x + x A) B."""
    nodes = [
        ("MatMul", ["x", "first"], ["inner"]),
        ("Add", ["x", "inner"], ["sum"]),
        ("MatMul", ["sum", "last"], ["y"]),
    ]
    tensors = {"first": first, "last": last}
    return linear_graph(path, nodes, tensors, width=len(first), **options)
