"""Scaling of all values, the perturbation of SCALE-UP."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from wobbliness.perturbations.base import DeviceDraws, Stream
from wobbliness.perturbations.levels import checked_levels, shown_level, shown_range
from wobbliness.perturbations.pictures.stretching import stretch

if TYPE_CHECKING:
    import torch

MAX_FACTOR = 1e6
BLACK = np.zeros(1, np.float32)


@dataclass(frozen=True, init=False)
class Scale:
    """Draw j multiplies all values by factor j and clips them to [0, 1].

    SCALE-UP (Guo et al. 2023) counts the factors under which the prediction stays
    (`readouts.agreement`), with 3, 5, 7, 9 and 11. There are as many draws as factors.

    >>> Scale(3, 5).name, Scale(3, 5).num_draws
    ('scale-3-5', 2)

    Attributes:
        factors: at least 0.

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
        return "-".join(("scale", *map(shown_level, self.factors)))

    @property
    def effect(self) -> str:
        """What it does to an input, in plain words."""
        return f"its brightness is multiplied by {shown_range(self.factors)}"

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
        """Writes clip(factor * image, 0, 1)."""
        # One factor for each draw of this page.
        factors = np.array(self.factors[stream.first : stream.first + draws], np.float32)
        # About black: contrast whose middle is 0.
        stretch(image.reshape(1, -1), BLACK, factors, out.reshape(draws, 1, -1))

    def lower(self, images: "torch.Tensor", draws: DeviceDraws) -> "torch.Tensor":
        """Returns the copies of the host, made on a device."""
        factors = draws.constant(self.name, lambda: np.array(self.factors, np.float32))
        chosen: torch.Tensor = factors[draws.numbers()].reshape(-1, *[1] * (images.ndim - 1))
        return (chosen * images).clamp_(max=1)
