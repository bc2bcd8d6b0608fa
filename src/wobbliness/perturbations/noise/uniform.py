"""Uniform noise, and the keyed uniform draws that other families are made of."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from wobbliness.perturbations.base import DeviceDraws, Stream
from wobbliness.perturbations.levels import checked_level, shown_level

if TYPE_CHECKING:
    import torch

# Of a word: float32 holds a multiple of 2^-23 and half of one more exactly, so u is never 0 or 1.
UNIFORM_BITS = 23
UNIT, HALF_UNIT = np.float32(2.0**-UNIFORM_BITS), np.float32(2.0 ** -(UNIFORM_BITS + 1))


@dataclass(frozen=True)
class Uniform:
    """Noise from the uniform distribution on [-r, r] for each value, added and not clipped.

    Its standard deviation is r / sqrt(3). Certificates in the l1 norm follow from it (Lee, Yuan,
    Chang and Jaakkola 2019; Yang et al. 2020, *Randomized Smoothing of All Shapes and Sizes*).

    >>> Uniform(0.1).name
    'uniform-0.1'

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
        return f"uniform-{shown_level(self.std)}"

    @property
    def effect(self) -> str:
        """What it does to an input, in plain words."""
        return f"random noise, uniform of standard deviation {self.std:g}, is added to it"

    def copies(
        self,
        stream: Stream,
        image: Float32[np.ndarray, "..."],
        draws: int,
        out: Float32[np.ndarray, "B ..."],
    ) -> None:
        """Writes image + 2 r (u - 1/2), with r = sqrt(3) std."""
        uniform_draws(stream, "uniform", image.shape, draws, out)
        # From (0, 1) to (-1/2, 1/2), then to (-r, r); in place, as `out` is this copy's alone.
        out -= np.float32(0.5)
        out *= np.float32(2 * math.sqrt(3) * self.std)
        out += image

    def lower(self, images: "torch.Tensor", draws: DeviceDraws) -> "torch.Tensor":
        """Returns copies on a device, from words that were drawn there."""
        centred = lowered_uniform(draws, "uniform", tuple(images.shape[1:])).sub_(0.5)
        return centred.mul_(2 * math.sqrt(3) * self.std).add_(images)


def uniform_draws(
    stream: Stream,
    purpose: str,
    shape: tuple[int, ...],
    draws: int,
    out: Float32[np.ndarray, "B ..."],
) -> None:
    """Writes uniform draws, multiples of 2^-23 and half of one more: within (0, 1).

    Args:
        stream: of an image.
        purpose: as for `Stream.words`.
        shape: of one draw.
        draws: of this page.
        out: `(draws, *shape)`.
    """
    # One word for each value; its upper bits are the number of steps.
    words = stream.words(purpose, int(np.prod(shape)), draws).reshape(out.shape)
    np.multiply(words >> (32 - UNIFORM_BITS), UNIT, out=out, casting="unsafe")
    # The middle of a step: symmetric about 1/2, and never 0 or 1.
    out += HALF_UNIT


def lowered_uniform(draws: DeviceDraws, purpose: str, shape: tuple[int, ...]) -> "torch.Tensor":
    """Returns draws of the same distribution on a device, `(B, *shape)` float32."""
    import torch

    words = draws.words(purpose, shape)
    # Shifted while they are integers: float32 would round 32 bits, some of them up to 1.
    steps: torch.Tensor = (words >> (32 - UNIFORM_BITS)).to(torch.float32)
    return steps.mul_(float(UNIT)).add_(float(HALF_UNIT))
