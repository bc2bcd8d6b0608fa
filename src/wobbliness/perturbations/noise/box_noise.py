"""Gaussian noise in a random box of the input only."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from wobbliness.perturbations.base import DeviceDraws, Stream
from wobbliness.perturbations.levels import checked_level, shown_level
from wobbliness.perturbations.noise.box_muller import add_in_boxes
from wobbliness.perturbations.noise.gaussian import standard_normal
from wobbliness.perturbations.shapes import LARGEST, SMALLEST, BoxSides, checked_picture

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class BoxNoise:
    """Noise from N(0, sigma^2 I) in a random box of each copy, added and not clipped.

    The draws are those of `Gaussian`; the boxes those of `BoxMix`.

    Attributes:
        sigma: standard deviation, pixel units of [0, 1].
        smallest: side of the box, as a share of the picture's side.
        largest: the same.

    Raises:
        ValueError: sigma or the sides are out of range.
    """

    sigma: float
    smallest: float = SMALLEST
    largest: float = LARGEST

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma", checked_level(self.sigma, "a sigma"))
        self._sides  # noqa: B018 - checks them

    @property
    def _sides(self) -> BoxSides:
        return BoxSides(self.smallest, self.largest)

    @property
    def name(self) -> str:
        """The name in records and tables."""
        levels = (self.sigma, self.smallest, self.largest)
        return "-".join(("box-noise", *map(shown_level, levels)))

    @property
    def effect(self) -> str:
        """What it does to an input, in plain words."""
        noise = f"random noise of standard deviation {self.sigma:g}"
        return f"{noise} is added to a rectangle, {self._sides.area} of it"

    def copies(
        self,
        stream: Stream,
        image: Float32[np.ndarray, "..."],
        draws: int,
        out: Float32[np.ndarray, "B ..."],
    ) -> None:
        """Writes the image with noise in a box of each copy."""
        checked_picture(image, "box-noise")
        # Drawn for the whole picture: at the same seed it is the noise of `Gaussian` there.
        normal = standard_normal(stream, image.shape, draws)
        bounds = self._sides.bounds(stream, image.shape[1:], draws)
        add_in_boxes(normal, np.float32(self.sigma), image, bounds, out)

    def lower(self, images: "torch.Tensor", draws: DeviceDraws) -> "torch.Tensor":
        """Returns copies on a device: the noise is drawn there, the boxes are the host's."""
        import torch

        # Drawn for all pixels and masked: boxes of many sizes are no one tensor.
        noise = draws.normal() * self._sides.lowered(images, draws)
        return torch.add(images, noise, alpha=self.sigma)
