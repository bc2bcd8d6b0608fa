"""Networks of the paper.

Images are always in [0, 1]: the normalisation is the network's own first step.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from hashlib import sha256
from pathlib import Path

import torch
from torch import nn


class Normalise(nn.Module):
    """Layer that computes (x - mean) / std for each channel.

    The training data's mean and standard deviation are buffers.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_channels, 1, 1))
        self.register_buffer("std", torch.ones(num_channels, 1, 1))

    def fit(self, images: torch.Tensor) -> None:
        """Takes mean and standard deviation from images `(N, C, H, W)`."""
        self.mean.copy_(images.mean(dim=(0, 2, 3))[:, None, None])
        self.std.copy_(images.std(dim=(0, 2, 3))[:, None, None])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns the normalised images, of the same shape."""
        if images.shape[-3] != len(
            self.mean
        ):  # else a grey image would silently be broadcast to three channels
            raise ValueError(
                f"expected images of {len(self.mean)} channels, got {images.shape[-3]}"
            )
        return (images - self.mean) / self.std


def small_cnn(image_shape: tuple[int, int, int], num_classes: int) -> nn.Sequential:
    """Returns conv 32 3x3, max-pool 2, conv 12 3x3, dense 50, softmax (section 3.1)."""
    return _cnn(image_shape, num_classes, filters=(32, 12), dense=(50,))


def large_cnn(image_shape: tuple[int, int, int], num_classes: int) -> nn.Sequential:
    """Returns the large CNN of section 3.2.1.

    Conv 64 3x3, max-pool 2, conv 32 3x3, dense 500, dense 500, softmax.
    """
    return _cnn(image_shape, num_classes, filters=(64, 32), dense=(500, 500))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation and a shortcut (He et al. 2016)."""

    def __init__(self, num_in: int, num_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(num_in, num_out, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(num_out),
            nn.ReLU(),
            nn.Conv2d(num_out, num_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(num_out),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or num_in != num_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(num_in, num_out, 1, stride, bias=False), nn.BatchNorm2d(num_out)
            )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Returns the features of the next stage."""
        return nn.functional.relu(self.body(features) + self.shortcut(features))


def resnet18(
    image_shape: tuple[int, int, int], num_classes: int, *, width: int = 64
) -> nn.Sequential:
    """Returns ResNet18 in its CIFAR form (He et al. 2016).

    A 3x3 first convolution, no max-pool, four stages of two blocks.

    Args:
        image_shape: (C, H, W) of the images.
        num_classes: K.
        width: channels of the first stage; 64 is the original.
    """
    channels = image_shape[0]
    stages: list[nn.Module] = []
    num_in = width
    for stage in range(4):
        num_out = width * 2**stage
        stages += [
            BasicBlock(num_in, num_out, 1 if stage == 0 else 2),
            BasicBlock(num_out, num_out, 1),
        ]
        num_in = num_out
    return nn.Sequential(
        Normalise(channels),
        nn.Conv2d(channels, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        *stages,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(num_in, num_classes),
    )


_BUILDERS: dict[str, Callable[[tuple[int, int, int], int], nn.Sequential]] = {
    "small_cnn": small_cnn,
    "large_cnn": large_cnn,
    "resnet18": resnet18,
    "resnet18_width16": partial(resnet18, width=16),
}

ARCHITECTURES = tuple(_BUILDERS)


def build_network(
    architecture: str, image_shape: tuple[int, int, int], num_classes: int, *, seed: int
) -> nn.Sequential:
    """Returns a network with weights drawn from `seed`.

    The global generator is left as it was.

    Raises:
        ValueError: no architecture has that name.
    """
    if architecture not in _BUILDERS:
        raise ValueError(
            f"expected an architecture out of {', '.join(ARCHITECTURES)}, got {architecture!r}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _BUILDERS[architecture](image_shape, num_classes)
    # torch's stubs lack this overload
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def structure(network: nn.Sequential) -> str:
    """Returns all that a network of this module computes with, except for its numbers.

    Its layers with their sizes, and their code.
    """
    return f"{network}\n{_code()}"


@cache
def _code() -> str:
    return sha256(Path(__file__).read_bytes()).hexdigest()


def _cnn(
    image_shape: tuple[int, int, int],
    num_classes: int,
    *,
    filters: Sequence[int],
    dense: Sequence[int],
) -> nn.Sequential:
    """Returns a CNN of two convolutions and dense layers.

    The paper says nothing of padding: none, but one pixel where an 8 x 8 image would be used up
    without it.
    """
    channels, height, width = image_shape
    padding = 0 if min(height, width) >= 16 else 1
    # sides after a 3 x 3 convolution, a pooling by 2, and a second 3 x 3 convolution
    rows, columns = ((side - 2 + 2 * padding) // 2 - 2 + 2 * padding for side in (height, width))
    layers: list[nn.Module] = [
        Normalise(channels),
        nn.Conv2d(channels, filters[0], 3, padding=padding),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(filters[0], filters[1], 3, padding=padding),
        nn.ReLU(),
        nn.Flatten(),
    ]
    num_in = filters[1] * rows * columns
    for num_out in dense:
        layers += [nn.Linear(num_in, num_out), nn.ReLU()]
        num_in = num_out
    return nn.Sequential(*layers, nn.Linear(num_in, num_classes))
