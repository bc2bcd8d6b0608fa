"""First convolution of a network with its ReLU and pooling in one pass, forward and backward."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float32
from torch import nn
from torch.autograd.function import once_differentiable

from wobbliness.attacks.gradients.pooling_loops import convolve, spread

NUM_LAYERS = 3
# of one image: with fewer, compiling the pass takes longer than it saves
MIN_ACTIVATIONS = 2**13


@contextmanager
def pooled_convolutions(network: nn.Module) -> Iterator[None]:
    """Runs convolution, ReLU and max-pooling of a `Sequential` in one pass, while active.

    One after the other these layers write and read every activation several times, and on the CPU
    that takes longer than their multiplications: a third of crafting in a network of few layers.
    Fused are 3 x 3 convolutions of one channel before a pooling of 2 x 2, in float32, where the
    images want gradients and are not tiny. Values and gradients are sums in another order than
    torch's, and may differ in the last digit.

    Args:
        network: its weights want no gradients meanwhile; its layers are put back afterwards.
    """
    replaced: list[tuple[nn.Sequential, list[nn.Module]]] = []
    try:
        # A list: layers are replaced while going through them. Subclasses may have a forward pass
        # of their own, which need not run its layers in order.
        for module in list(network.modules()):
            if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
                replaced.append((module, list(module)))
                _replace_layers(module)
        yield
    finally:
        for module, layers in replaced:
            for index, layer in enumerate(layers):
                module[index] = layer


def _replace_layers(module: nn.Sequential) -> None:
    layers = list(module)
    for first in range(len(layers) - NUM_LAYERS + 1):
        group = layers[first : first + NUM_LAYERS]
        if _is_plain(group):
            # One layer for three; identities keep the indices of the others.
            module[first] = _PooledConvolution(group)
            for index in range(first + 1, first + NUM_LAYERS):
                module[index] = nn.Identity()


def _is_plain(layers: Sequence[nn.Module]) -> bool:
    """Checks whether these are a convolution, a ReLU and a pooling that the pass supports.

    None of them may have hooks.
    """
    convolution, *others = layers
    # ReLU and max-pooling commute, so either order of the two is the same function.
    pooling = next((layer for layer in others if type(layer) is nn.MaxPool2d), None)
    has_relu = any(type(layer) is nn.ReLU for layer in others)
    if type(convolution) is not nn.Conv2d or pooling is None or not has_relu:
        return False
    # Hooks would not run within the fused pass.
    is_listened_to = any(
        layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks
        for layer in layers
    )
    return not is_listened_to and _is_plain_convolution(convolution) and _is_plain_pooling(pooling)


def _is_plain_convolution(layer: nn.Conv2d) -> bool:
    is_small = layer.kernel_size == (3, 3) and layer.in_channels == 1
    is_dense = layer.stride == layer.dilation == (1, 1) and layer.groups == 1
    return (
        is_small
        and is_dense
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    )


def _is_plain_pooling(layer: nn.MaxPool2d) -> bool:
    sizes = [
        value if isinstance(value, tuple) else (value, value)
        for value in (layer.kernel_size, layer.stride)
    ]
    # Windows that do not overlap: each pixel's gradient comes from one window.
    is_apart = layer.padding in (0, (0, 0)) and layer.dilation in (1, (1, 1))
    return (
        sizes == [(2, 2), (2, 2)] and is_apart and not layer.ceil_mode and not layer.return_indices
    )


class _PooledConvolution(nn.Module):
    """Three layers in one pass where images want gradients, and as they are elsewhere."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self._layers = nn.Sequential(*layers)
        self._format: torch.memory_format | None = None
        convolution = self._layers[0]
        assert isinstance(convolution, nn.Conv2d)
        assert not isinstance(convolution.padding, str)
        # torch's padding goes from the last axis to the first, each before and after.
        top, left = convolution.padding
        self._padding = (left, left, top, top)
        self._learns = any(parameter.requires_grad for parameter in convolution.parameters())
        kernel = convolution.weight.detach()
        self._fits = kernel.device.type == "cpu" and kernel.dtype == torch.float32
        # (9, K): the inner loop runs over adjacent filters.
        self._kernels = kernel.flatten(1).T.contiguous()
        bias = convolution.bias
        self._bias = torch.zeros(len(kernel)) if bias is None else bias.detach()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Computes `(B, K, H', W')` from images `(B, 1, H, W)`."""
        if not self._is_fit(images):
            return self._layers(images)  # type: ignore[no-any-return]  # layers are untyped
        if self._format is None:
            # Found once, by running the replaced layers on two images.
            self._format = self._format_of_torch(images[:2])
        # Padding once spares the loops every test for the border.
        padded = nn.functional.pad(images[:, 0], self._padding).contiguous()
        one_pass: Any = _OnePass.apply
        pooled: torch.Tensor = one_pass(padded, self._kernels, self._bias)
        # The filters come last in the loops and second in torch.
        return pooled.permute(0, 3, 1, 2).contiguous(memory_format=self._format)

    def _is_fit(self, images: torch.Tensor) -> bool:
        """Checks whether the pass supports these images, and saves time."""
        is_wanted = images.requires_grad and torch.is_grad_enabled() and not self._learns
        is_float = self._fits and images.dtype == torch.float32
        if not (is_wanted and is_float and images.ndim == 4 and images.shape[1] == 1):
            return False
        return images.shape[2:].numel() * len(self._bias) >= MIN_ACTIVATIONS

    def _format_of_torch(self, images: torch.Tensor) -> torch.memory_format:
        """Returns the memory format of the layers' output: the next ones may take no other."""
        with torch.no_grad():
            is_contiguous = self._layers(images).is_contiguous()
        return torch.contiguous_format if is_contiguous else torch.channels_last


class _OnePass(torch.autograd.Function):
    """Autograd function of padded images `(B, H, W)`, kernels `(9, K)`, bias `(K,)`.

    Its value is `(B, H', W', K)`.
    """

    @staticmethod
    def forward(
        ctx: Any, images: torch.Tensor, kernels: torch.Tensor, bias: torch.Tensor
    ) -> torch.Tensor:
        # 3 x 3 without padding loses two rows and columns; pooling halves, odd ends are dropped.
        size, height, width = images.shape
        pooled = torch.empty((size, (height - 2) // 2, (width - 2) // 2, len(bias)))
        # For the backward pass: which of its window's four values each output is.
        places = torch.empty_like(pooled)
        convolve(images.numpy(), kernels.numpy(), bias.numpy(), pooled.numpy(), places.numpy())
        ctx.save_for_backward(places, kernels)
        ctx.size = images.shape
        return pooled

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradients: Float32[torch.Tensor, "B H W K"]
    ) -> tuple[torch.Tensor, None, None]:
        # Zeros: windows without a value above 0 pass no gradient, and neighbours' are added up.
        places, kernels = ctx.saved_tensors
        pixels = torch.zeros(ctx.size)
        spread(gradients.contiguous().numpy(), places.numpy(), kernels.numpy(), pixels.numpy())
        return pixels, None, None
