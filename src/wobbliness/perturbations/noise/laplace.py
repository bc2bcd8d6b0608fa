"""Laplace noise."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from wobbliness.perturbations.base import DeviceDraws, Stream
from wobbliness.perturbations.levels import checked_level, shown_level
from wobbliness.perturbations.noise.box_muller import scale_and_add
from wobbliness.perturbations.noise.laplace_transform import fill_laplace
from wobbliness.perturbations.noise.uniform import lowered_uniform

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Laplace:
    """Noise from the Laplace distribution for each value, added and not clipped.

    The density is exp(-|t| / b) / (2 b), its standard deviation b sqrt(2). Certificates in the l1
    norm follow from it (Lecuyer et al. 2019; Teng, Lee and Yuan 2020).

    >>> Laplace(0.1).name
    'laplace-0.1'

    Attributes:
        std: standard deviation, pixel units of [0, 1].

    Raises:
        ValueError: std is negative or no finite number.
    """

    std: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "std", checked_level(self.std, "a standard deviation"))

    @property
    def name(self) -> str:
        """The name in records and tables."""
        return f"laplace-{shown_level(self.std)}"

    @property
    def effect(self) -> str:
        """What it does to an input, in plain words."""
        return f"random noise, Laplacian of standard deviation {self.std:g}, is added to it"

    def copies(
        self,
        stream: Stream,
        image: Float32[np.ndarray, "..."],
        draws: int,
        out: Float32[np.ndarray, "B ..."],
    ) -> None:
        """Writes image + b t, t by the quantile function of a uniform draw."""
        draws_of_one = standard_laplace(stream, "laplace", image.shape, draws)
        # The scale b of a Laplace distribution is its standard deviation over sqrt(2).
        scale = np.float32(self.std / math.sqrt(2))
        flat = (draws, -1)
        scale_and_add(draws_of_one.reshape(flat), scale, image.reshape(-1), out.reshape(flat))

    def lower(self, images: "torch.Tensor", draws: DeviceDraws) -> "torch.Tensor":
        """Returns copies on a device, from words that were drawn there."""
        noise = lowered_laplace(draws, "laplace", tuple(images.shape[1:]))
        return noise.mul_(self.std / math.sqrt(2)).add_(images)


def standard_laplace(
    stream: Stream, purpose: str, shape: tuple[int, ...], draws: int
) -> Float32[np.ndarray, "B ..."]:
    """Returns draws of scale 1, up to 15.9; overwritten by the next ones of the same purpose.

    That is t = -sign(v) ln(1 - 2 |v|) for v = u - 1/2 and u as `uniform_draws` writes it.

    Args:
        stream: of an image.
        purpose: as for `Stream.words`.
        shape: of one draw.
        draws: of this page.
    """
    size = int(np.prod(shape))
    made = stream.scratch.array(f"laplace {purpose}", (draws, size))
    fill_laplace(stream.words(purpose, size, draws), made)
    return made.reshape(draws, *shape)


def lowered_laplace(draws: DeviceDraws, purpose: str, shape: tuple[int, ...]) -> "torch.Tensor":
    """Returns draws of scale 1 on a device: the arguments are those of `lowered_uniform`."""
    centred = lowered_uniform(draws, purpose, shape).sub_(0.5)
    # The steps of the host; `centred` keeps the signs until the last one.
    return centred.abs().mul_(-2).log1p_().copysign_(centred)
