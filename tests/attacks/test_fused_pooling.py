"""Convolution, ReLU and pooling in one pass, compared with torch's values and gradients."""

import contextlib

import pytest
import torch
from torch import nn

from wobbliness.attacks.gradients import fused_pooling as pooled_convolution
from wobbliness.attacks.gradients.frozen_network import differentiable, frozen
from wobbliness.attacks.gradients.fused_pooling import pooled_convolutions


@pytest.fixture(autouse=True)
def tiny_images_too(monkeypatch):
    monkeypatch.setattr(pooled_convolution, "MIN_ACTIVATIONS", 1)


def with_gradients(network, images):
    wanted = images.clone().requires_grad_()
    outputs = network(wanted)
    weights = torch.randn(
        outputs.shape, generator=torch.Generator().manual_seed(1), dtype=outputs.dtype
    )
    (gradients,) = torch.autograd.grad(outputs, wanted, weights)
    return outputs, gradients


def is_ours(outputs):
    step = outputs.grad_fn
    while step is not None:
        if "OnePass" in step.name():
            return True
        step = next((before for before, _ in step.next_functions if before is not None), None)
    return False


def plain_layers(**options):
    return [nn.Conv2d(1, 6, 3, **options), nn.ReLU(), nn.MaxPool2d(2)]


# of the weights, and so of activations
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1)])
@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (28, 28)),
        ({"padding": 1}, (8, 8)),
        ({"padding": (0, 2), "bias": False}, (9, 7)),
        ({}, (7, 6)),
    ],
)
def test_values_and_gradients_are_those_of_torch(options, shape, order, memory_format):
    torch.manual_seed(0)
    layers = plain_layers(**options)
    network, images = nn.Sequential(*(layers[index] for index in order)), torch.randn(5, 1, *shape)
    network.to(memory_format=memory_format)
    with frozen(network):
        expected, expected_gradients = with_gradients(network, images)
        with pooled_convolutions(network):
            found, gradients = with_gradients(network, images)
    assert is_ours(found)
    assert not is_ours(expected)
    assert found.stride() == expected.stride()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-5, atol=1e-6)


def test_the_first_of_equal_values_takes_the_gradient():
    network, images = nn.Sequential(*plain_layers()), torch.full((2, 1, 6, 6), 0.5)
    with frozen(network):
        _, expected = with_gradients(network, images)
        with pooled_convolutions(network):
            found, gradients = with_gradients(network, images)
    assert is_ours(found)
    torch.testing.assert_close(gradients, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv2d(2, 6, 3), nn.ReLU(), nn.MaxPool2d(2)],
        [nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2)],
        plain_layers(stride=2),
        plain_layers(dilation=2),
        plain_layers(padding=1, padding_mode="reflect"),
        plain_layers(padding="same"),
        [nn.Conv2d(1, 6, 3), nn.ReLU(), nn.MaxPool2d(3)],
        [nn.Conv2d(1, 6, 3), nn.ReLU(), nn.MaxPool2d(2, stride=1)],
        [nn.Conv2d(1, 6, 3), nn.ReLU(), nn.MaxPool2d(2, padding=1)],
        [nn.Conv2d(1, 6, 3), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)],
        [nn.Conv2d(1, 6, 3), nn.ReLU(), nn.AvgPool2d(2)],
        [nn.Conv2d(1, 6, 3), nn.GELU(), nn.MaxPool2d(2)],
        [nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2)],
        [nn.Conv2d(1, 6, 3), nn.ReLU()],
    ],
    ids=str,
)
def test_other_layers_are_left_to_torch(layers):
    network = nn.Sequential(*layers)
    images = torch.rand(2, layers[0].in_channels, 9, 9)
    with frozen(network):
        expected, expected_gradients = with_gradients(network, images)
        with pooled_convolutions(network):
            assert list(network) == layers
            found, gradients = with_gradients(network, images)
    assert torch.equal(found, expected)
    assert torch.equal(gradients, expected_gradients)


def test_layers_that_are_listened_to_are_left_to_torch():
    network, heard = nn.Sequential(*plain_layers()), []
    network[1].register_forward_hook(lambda *call: heard.append(call[-1].shape))
    with frozen(network), pooled_convolutions(network):
        outputs, _ = with_gradients(network, torch.rand(2, 1, 8, 8))
    assert not is_ours(outputs)
    assert heard == [(2, 6, 6, 6)]


@pytest.mark.parametrize(
    "what",
    ["no gradients", "weights that learn", "a bias that learns", "double precision", "tiny images"],
)
def test_other_passes_are_left_to_torch(what, monkeypatch):
    network, images = nn.Sequential(*plain_layers()), torch.rand(2, 1, 8, 8)
    if what == "double precision":
        network, images = network.double(), images.double()
    if what == "tiny images":
        monkeypatch.setattr(pooled_convolution, "MIN_ACTIVATIONS", 8 * 8 * 6 + 1)
    learned = {
        "weights that learn": list(network.parameters()),
        "a bias that learns": [network[0].bias],
    }.get(what, [])
    network.requires_grad_(False)
    for parameter in learned:
        parameter.requires_grad_(True)
    expected = network(images)
    with pooled_convolutions(network):
        outputs = network(images.requires_grad_(what != "no gradients"))
    assert not is_ours(outputs)
    assert torch.equal(outputs, expected)
    if learned:
        assert all(gradient is not None for gradient in torch.autograd.grad(outputs.sum(), learned))


def test_a_network_gets_its_layers_back_whatever_happens():
    relu = nn.ReLU()  # one module in two places
    inner = nn.Sequential(nn.Conv2d(1, 6, 3), relu, nn.MaxPool2d(2), nn.Conv2d(6, 6, 3), relu)
    network = nn.Sequential(inner, nn.Flatten())
    before = [*inner], [*network], list(network.state_dict())
    with contextlib.suppress(KeyError), pooled_convolutions(network):
        assert inner[1] is not relu
        raise KeyError
    assert ([*inner], [*network], list(network.state_dict())) == before


def test_crafting_goes_through_it_in_the_format_of_the_network():
    """A network that flattens by `view` takes contiguous activations only."""

    class Viewed(nn.Module):
        def __init__(self):
            super().__init__()
            self.features, self.head = nn.Sequential(*plain_layers()), nn.Linear(6 * 9, 10)

        def forward(self, images):
            features = self.features(images)
            return self.head(features.view(len(features), -1))

    network, images = Viewed(), torch.rand(3, 1, 8, 8)
    expected, expected_gradients = with_gradients(network, images)
    with differentiable(network, images, 10) as forward:
        logits, gradients = with_gradients(lambda pixels: forward(pixels, fast=False), images)
    assert is_ours(logits)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-4, atol=1e-5)
