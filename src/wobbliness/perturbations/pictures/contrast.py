"""Contrast of a picture."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from wobbliness.perturbations.base import DeviceDraws, Stream
from wobbliness.perturbations.levels import checked_levels, shown_level, shown_range
from wobbliness.perturbations.pictures.stretching import stretch
from wobbliness.perturbations.shapes import checked_picture

if TYPE_CHECKING:
    import torch

MAX_FACTOR = 1e6


@dataclass(frozen=True, init=False)
class Contrast:
    """Draw j multiplies the differences from each channel's mean by factor j, and clips to [0, 1].

    The contrast corruption of Hendrycks and Dietterich (2019), at factors of one's own. There are
    as many draws as factors.

    >>> Contrast(0.5, 0.3).name
    'contrast-0.5-0.3'

    Attributes:
        factors: at least 0; 1 changes nothing.

    Raises:
        ValueError: there is no factor, one is out of range, or two are equal.
    """

    factors: tuple[float, ...]

    def __init__(self, *factors: float) -> None:
        """Takes the factors one by one."""
        levels = checked_levels(factors, "a factor", at_most=MAX_FACTOR)
        object.__setattr__(self, "factors", levels)

    @property
    def name(self) -> str:
        """The name in records and tables."""
        return "-".join(("contrast", *map(shown_level, self.factors)))

    @property
    def effect(self) -> str:
        """What it does to an input, in plain words."""
        return f"its contrast is multiplied by {shown_range(self.factors)}"

    @property
    def num_draws(self) -> int:
        """The number of factors."""
        return len(self.factors)

    def copies(
        self,
        stream: Stream,
        image: Float32[np.ndarray, "..."],
        draws: int,
        out: Float32[np.ndarray, "B ..."],
    ) -> None:
        """Writes clip(mean + factor * (image - mean), 0, 1)."""
        channels, height, width = checked_picture(image, "contrast")
        # Of each channel on its own, as in the corruption.
        flat = image.reshape(channels, -1)
        mean = np.add.reduce(flat, axis=1) / np.float32(height * width)
        factors = np.array(self.factors[stream.first : stream.first + draws], np.float32)
        stretch(flat, mean, factors, out.reshape(draws, channels, -1))

    def lower(self, images: "torch.Tensor", draws: DeviceDraws) -> "torch.Tensor":
        """Returns the copies of the host, made on a device, up to the rounding of the mean."""
        factors = draws.constant(self.name, lambda: np.array(self.factors, np.float32))
        mean = images.mean(dim=(2, 3), keepdim=True)
        chosen: torch.Tensor = factors[draws.numbers()][:, None, None, None]
        return (chosen * (images - mean)).add_(mean).clamp_(0, 1)
