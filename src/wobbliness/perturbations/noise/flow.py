"""Noise on the flow of brightness between neighbouring pixels."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from wobbliness.perturbations.base import DeviceDraws, Stream
from wobbliness.perturbations.levels import checked_level, shown_level
from wobbliness.perturbations.noise.laplace import lowered_laplace, standard_laplace
from wobbliness.perturbations.noise.laplace_transform import let_flow
from wobbliness.perturbations.shapes import checked_picture

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Flow:
    """Laplace noise on the flow between neighbouring pixels, not clipped.

    Each pair of neighbours in a row or a column exchanges an amount of brightness. The sum over a
    channel stays the same. Smoothing by it is certified in the Wasserstein distance (Levine and
    Feizi 2020, *Wasserstein Smoothing*; they divide images by their sum, here amounts are in pixel
    units).

    >>> Flow(0.05).name
    'flow-0.05'

    Attributes:
        std: standard deviation of each flow, pixel units of [0, 1].

    Raises:
        ValueError: std is negative or no finite number; an input is no picture.
    """

    std: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "std", checked_level(self.std, "a standard deviation"))

    @property
    def name(self) -> str:
        """The name in records and tables."""
        return f"flow-{shown_level(self.std)}"

    @property
    def effect(self) -> str:
        """What it does to an input, in plain words."""
        return f"brightness flows between its pixels, with a standard deviation of {self.std:g}"

    def copies(
        self,
        stream: Stream,
        image: Float32[np.ndarray, "..."],
        draws: int,
        out: Float32[np.ndarray, "B ..."],
    ) -> None:
        """Writes the image with what flows away taken from a pixel and added to its neighbour."""
        channels, height, width = checked_picture(image, "flow")
        # Between vertical neighbours, and between horizontal ones: H (W - 1) + (H - 1) W flows.
        down = standard_laplace(stream, "flow down", (channels, height - 1, width), draws)
        right = standard_laplace(stream, "flow right", (channels, height, width - 1), draws)
        let_flow(image, np.float32(self.std / math.sqrt(2)), down, right, out)

    def lower(self, images: "torch.Tensor", draws: DeviceDraws) -> "torch.Tensor":
        """Returns copies on a device, from words that were drawn there."""
        channels, height, width = images.shape[1:]
        # The scale b of a Laplace distribution is its standard deviation over sqrt(2).
        scale = self.std / math.sqrt(2)
        down = lowered_laplace(draws, "flow down", (channels, height - 1, width)).mul_(scale)
        right = lowered_laplace(draws, "flow right", (channels, height, width - 1)).mul_(scale)
        copies = images.clone()
        # Each flow leaves one pixel and arrives at its neighbour: the sum of a channel stays.
        copies[..., :-1, :] -= down
        copies[..., 1:, :] += down
        copies[..., :-1] -= right
        copies[..., 1:] += right
        return copies
