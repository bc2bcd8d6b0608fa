"""Gaussian blur of a picture."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from wobbliness.perturbations.base import DeviceDraws, Stream
from wobbliness.perturbations.levels import checked_levels, shown_level, shown_range
from wobbliness.perturbations.pictures.smoothing import smoothing
from wobbliness.perturbations.shapes import checked_picture

if TYPE_CHECKING:
    import torch

MAX_WIDTH = 1e3


@dataclass(frozen=True, init=False)
class Blur:
    """Draw j blurs each channel with a Gaussian kernel of width j.

    There are as many draws as widths. Beyond the edge its last pixel is repeated.

    >>> Blur(0.5, 1).name
    'blur-0.5-1'

    Attributes:
        widths: standard deviations of the kernel in pixels; 0 changes nothing.

    Raises:
        ValueError: there is no width, one is out of range, or two are equal.
    """

    widths: tuple[float, ...]

    def __init__(self, *widths: float) -> None:
        """Takes the widths one by one."""
        object.__setattr__(self, "widths", checked_levels(widths, "a width", at_most=MAX_WIDTH))

    @property
    def name(self) -> str:
        """The name in records and tables."""
        return "-".join(("blur", *map(shown_level, self.widths)))

    @property
    def effect(self) -> str:
        """What it does to an input, in plain words."""
        return f"it is blurred, by {shown_range(self.widths)} pixels"

    @property
    def num_draws(self) -> int:
        """The number of widths."""
        return len(self.widths)

    def copies(
        self,
        stream: Stream,
        image: Float32[np.ndarray, "..."],
        draws: int,
        out: Float32[np.ndarray, "B ..."],
    ) -> None:
        """Writes blurred pictures."""
        _, *size = checked_picture(image, "blur")
        # The filter is separable: a matrix for each axis and width.
        chosen = slice(stream.first, stream.first + draws)
        rows, columns = (
            smoothing(length, self.widths, mode="nearest")[chosen, None] for length in size
        )
        np.matmul(np.matmul(rows, image), columns.swapaxes(2, 3), out=out)

    def lower(self, images: "torch.Tensor", draws: DeviceDraws) -> "torch.Tensor":
        """Returns the copies of the host, made on a device, up to rounding."""
        # Rows of a block may be of several images: each takes the width of its own draw.
        numbers = draws.numbers()
        rows, columns = (
            draws.constant(
                f"{self.name} of {size}",
                partial(smoothing, size, self.widths, mode="nearest"),
            )[numbers, None]
            for size in images.shape[2:]
        )
        blurred: torch.Tensor = rows @ images @ columns.mT
        return blurred
