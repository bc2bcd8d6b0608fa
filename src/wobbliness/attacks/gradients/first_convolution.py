"""Gradients for the pixels through a network's first convolution, on the processor."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

FEW_CHANNELS = 4  # grey, colour, colour with alpha


class PixelGradients(TorchFunctionMode):
    """While active, convolutions of images send their gradients back by one product of matrices.

    Convolution libraries are made for many channels: going back to one or three they fill a vector
    register badly, and on the processor that step alone takes a quarter of crafting. Convolutions
    of another kind (strides, dilation, groups, more than `FEW_CHANNELS` channels) and those whose
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
            and len(args) == 7
            and not kwargs
            and _is_of_pixels(*args)
        ):
            images, weight, bias, _, padding, _, _ = args
            return _ConvolutionOfPixels.apply(images, weight, bias, padding)  # type: ignore[no-untyped-call]  # torch's
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
    """Whether it is a plain convolution on the processor that wants gradients for few channels and for nothing else."""
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
    """Forward torch's own; backward each place of the kernel is a row of one product, and the rows are added where they lay."""

    @staticmethod
    def forward(
        ctx: Any,
        images: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        padding: tuple[int, int],
    ) -> torch.Tensor:
        ctx.save_for_backward(weight)
        ctx.size, ctx.dtype, ctx.padding = images.shape, images.dtype, padding
        return nn.functional.conv2d(images, weight, bias, padding=padding)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradients: Float[torch.Tensor, "B K H W"]
    ) -> tuple[torch.Tensor, None, None, None]:
        (weight,) = ctx.saved_tensors
        (size, channels, height, width), (above, beside) = ctx.size, ctx.padding
        filters, _, *kernel = weight.shape
        rows, columns = gradients.shape[2:]
        by_place = weight.permute(2, 3, 1, 0).reshape(-1, filters).to(gradients.dtype)
        parts = by_place @ gradients.permute(0, 2, 3, 1).reshape(-1, filters).T
        parts = parts.view(*kernel, channels, size, rows, columns)
        padded = torch.zeros(
            (channels, size, height + 2 * above, width + 2 * beside), dtype=ctx.dtype
        )
        for row in range(kernel[0]):
            for column in range(kernel[1]):
                padded[:, :, row : row + rows, column : column + columns] += parts[row, column]
        return (
            padded[:, :, above : above + height, beside : beside + width].transpose(0, 1),
            None,
            None,
            None,
        )
