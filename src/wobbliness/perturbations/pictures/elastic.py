"""Random elastic distortion of a picture."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from wobbliness.perturbations.base import DeviceDraws, Stream
from wobbliness.perturbations.levels import checked_level, shown_level
from wobbliness.perturbations.noise.uniform import lowered_uniform, uniform_draws
from wobbliness.perturbations.pictures.interpolation import interpolate
from wobbliness.perturbations.pictures.on_device import interpolated, places
from wobbliness.perturbations.pictures.smoothing import smoothing
from wobbliness.perturbations.shapes import checked_picture

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Elastic:
    """Each pixel takes the value of a place near it; places vary smoothly over the picture.

    Displacements are uniform on [-1, 1], smoothed by a Gaussian kernel, times `strength` (Simard,
    Steinkraus and Platt 2003). Values between pixels are interpolated linearly; beyond the edge its
    last pixel is repeated.

    >>> Elastic(8, width=3).name
    'elastic-8-3'

    Attributes:
        strength: factor of the smoothed displacements, in pixels; 0 changes nothing.
        width: standard deviation of the kernel, in pixels.

    Raises:
        ValueError: a setting is out of range.
    """

    strength: float
    width: float = 3.0

    def __post_init__(self) -> None:
        for field, most in (("strength", 1e4), ("width", 1e3)):
            level = checked_level(getattr(self, field), f"the {field}", at_most=most)
            object.__setattr__(self, field, level)

    @property
    def name(self) -> str:
        """The name in records and tables."""
        return f"elastic-{shown_level(self.strength)}-{shown_level(self.width)}"

    @property
    def effect(self) -> str:
        """What it does to an input, in plain words."""
        return f"it is warped like rubber, with a strength of {self.strength:g}"

    def copies(
        self,
        stream: Stream,
        image: Float32[np.ndarray, "..."],
        draws: int,
        out: Float32[np.ndarray, "B ..."],
    ) -> None:
        """Writes distorted pictures; a word for each pixel and direction decides."""
        _, *size = checked_picture(image, "elastic")
        moves = np.empty((draws, 2, *size), np.float32)
        uniform_draws(stream, "elastic", (2, *size), draws, moves)
        # Smoothing is linear and separable: a matrix for each axis, for all copies in one call.
        down, across = (smoothing(length, (self.width,), mode="reflect")[0] for length in size)
        smooth = np.matmul(down, np.matmul(2 * moves - 1, across.T))
        # Each pixel takes the value at its own place plus the displacement.
        places = np.indices(size, dtype=np.float32) + np.float32(self.strength) * smooth
        interpolate(image, places, out)

    def lower(self, images: "torch.Tensor", draws: DeviceDraws) -> "torch.Tensor":
        """Returns copies on a device, from words that were drawn there."""
        size = tuple(images.shape[2:])
        moves = lowered_uniform(draws, "elastic", (2, *size)).mul_(2).sub_(1)
        down, across = (
            # Sent to the device once, for all blocks.
            draws.constant(
                f"smoothing {self.width} of {length}",
                partial(smoothing, length, (self.width,), mode="reflect"),
            )
            for length in size
        )
        # Two batched products filter both axes of all copies.
        smooth = self.strength * (down @ moves @ across.mT)
        rows, columns = places(images)
        return interpolated(images, rows + smooth[:, 0], columns + smooth[:, 1])
