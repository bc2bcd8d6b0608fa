"""Gradients for the pixels through a network's first convolution, on the CPU."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

FEW_CHANNELS = 4  # grey, colour, colour with alpha


class PixelGradients(TorchFunctionMode):
    """Mode in which convolutions of images compute their gradients by one matrix product.

    Convolution libraries are made for many channels: going back to one or three they fill a vector
    register badly, and on the CPU that step alone takes a quarter of crafting. Convolutions of
    another kind (strides, dilation, groups, more than `FEW_CHANNELS` channels) and those whose
    weights want gradients stay as they are; so does every value going forward.
    """

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        if (
            function is nn.functional.conv2d
            # As torch's own layers call it: all seven arguments by position.
            and len(args) == 7
            and not kwargs
            and _is_of_pixels(*args)
        ):
            images, weight, bias, _, padding, _, _ = args
            convolve: Any = _ConvolutionOfPixels.apply
            return convolve(images, weight, bias, padding)
        return function(*args, **(kwargs or {}))


def _is_of_pixels(
    images: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: object,
    padding: object,
    dilation: object,
    groups: int,
) -> bool:
    """Checks whether it is a plain convolution on the CPU with gradients for few channels only."""
    learned = weight.requires_grad or (bias is not None and bias.requires_grad)
    is_wanted = torch.is_grad_enabled() and images.requires_grad and not learned
    is_plain = groups == 1 and stride == dilation == (1, 1) and isinstance(padding, tuple)
    return (
        is_wanted
        and is_plain
        and images.ndim == 4
        and images.shape[1] <= FEW_CHANNELS
        and images.device.type == "cpu"
    )


class _ConvolutionOfPixels(torch.autograd.Function):
    """Convolution with torch's forward pass and a backward pass by one product.

    Backward, each position of the kernel is a row of the product; each row is added to the pixels
    at that position's offset.
    """

    @staticmethod
    def forward(
        ctx: Any,
        images: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        padding: tuple[int, int],
    ) -> torch.Tensor:
        # The images themselves are not needed: the weights want no gradients.
        ctx.save_for_backward(weight)
        ctx.size, ctx.dtype, ctx.padding = images.shape, images.dtype, padding
        return nn.functional.conv2d(images, weight, bias, padding=padding)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradients: Float[torch.Tensor, "B K H W"]
    ) -> tuple[torch.Tensor, None, None, None]:
        (weight,) = ctx.saved_tensors
        filters, channels, *kernel = weight.shape
        size, _, rows, columns = gradients.shape
        # Kernel weights as rows (i, j, c), with the filters as columns.
        by_place = weight.permute(2, 3, 1, 0).reshape(-1, filters).to(gradients.dtype)
        # Row (i, j, c): the gradient that kernel position (i, j) passes to channel c, at every
        # output.
        parts = by_place @ gradients.permute(0, 2, 3, 1).reshape(-1, filters).T
        parts = parts.view(*kernel, channels, size, rows, columns)
        return _summed(parts, ctx.size[2:], ctx.padding, ctx.dtype), None, None, None


def _summed(
    parts: Float[torch.Tensor, "I J C B H W"],
    size: Sequence[int],
    padding: tuple[int, int],
    dtype: torch.dtype,
) -> Float[torch.Tensor, "B C Y X"]:
    """Adds up the parts, each shifted by its position in the kernel."""
    (height, width), (top, left) = size, padding
    *kernel, channels, num, rows, columns = parts.shape
    padded = torch.zeros((channels, num, height + 2 * top, width + 2 * left), dtype=dtype)
    # Parts overlap, so they are added one by one and in a fixed order; the padding is cut off.
    for row in range(kernel[0]):
        for column in range(kernel[1]):
            padded[:, :, row : row + rows, column : column + columns] += parts[row, column]
    return padded[:, :, top : top + height, left : left + width].transpose(0, 1)
