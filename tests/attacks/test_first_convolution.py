"""Pixel gradients by one matrix product, compared with those of torch's convolution."""

import pytest
import torch
from torch import nn

from wobbliness.attacks.gradients.first_convolution import PixelGradients


def gradients_of(convolution, images, weights_of_outputs):
    wanted = images.clone().requires_grad_()
    outputs = convolution(wanted)
    (outputs.float() * weights_of_outputs(outputs)).sum().backward()
    return outputs, wanted.grad


def fixed_weights(outputs):
    return torch.randn(outputs.shape, generator=torch.Generator().manual_seed(1))


def frozen(convolution):
    for parameter in convolution.parameters():
        parameter.requires_grad_(False)
    return convolution


def is_ours(outputs):
    return "ConvolutionOfPixels" in outputs.grad_fn.name()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("channels", "options"),
    [
        (1, {"kernel_size": 3}),
        (3, {"kernel_size": 3, "padding": 1, "bias": False}),
        (2, {"kernel_size": (5, 2), "padding": (0, 2)}),
        (3, {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"}),
        (4, {"kernel_size": 1}),
    ],
)
def test_gradients_are_those_of_torch(channels, options, memory_format):
    torch.manual_seed(0)
    convolution = frozen(nn.Conv2d(channels, 6, **options))
    images = torch.rand(3, channels, 9, 7).contiguous(memory_format=memory_format)
    outputs, expected = gradients_of(convolution, images, fixed_weights)
    with PixelGradients():
        ours, found = gradients_of(convolution, images, fixed_weights)
    assert is_ours(ours)
    assert not is_ours(outputs)
    assert torch.equal(ours, outputs)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_gradients_of_autocast_are_float32():
    convolution, images = frozen(nn.Conv2d(1, 8, 3)), torch.rand(2, 1, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        _, expected = gradients_of(convolution, images, fixed_weights)
        with PixelGradients():
            ours, found = gradients_of(convolution, images, fixed_weights)
    assert is_ours(ours)
    assert found.dtype == expected.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)


def test_double_precision_is_kept():
    convolution, images = (
        frozen(nn.Conv2d(1, 4, 3).double()),
        torch.rand(2, 1, 6, 6, dtype=torch.float64),
    )
    _, expected = gradients_of(convolution, images, torch.ones_like)
    with PixelGradients():
        _, found = gradients_of(convolution, images, torch.ones_like)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("channels", "options"),
    [
        (1, {"kernel_size": 3, "stride": 2}),
        (1, {"kernel_size": 3, "dilation": 2}),
        (2, {"kernel_size": 3, "groups": 2}),
        (5, {"kernel_size": 3}),
        (1, {"kernel_size": 3, "padding": "same"}),
    ],
)
def test_other_convolutions_are_left_to_torch(channels, options):
    convolution, images = frozen(nn.Conv2d(channels, 4, **options)), torch.rand(2, channels, 8, 8)
    with PixelGradients():
        outputs, _ = gradients_of(convolution, images, fixed_weights)
    assert not is_ours(outputs)


def test_weights_that_want_gradients_get_them():
    convolution, images = nn.Conv2d(1, 4, 3), torch.rand(2, 1, 8, 8)
    with PixelGradients():
        outputs, _ = gradients_of(convolution, images, fixed_weights)
    assert not is_ours(outputs)
    assert convolution.weight.grad.abs().sum() > 0
