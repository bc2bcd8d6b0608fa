"""Gaussian blur of a picture."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32
from scipy import ndimage

from wobbliness.perturbations.base import DeviceDraws, Stream
from wobbliness.perturbations.levels import checked_levels, shown_level
from wobbliness.perturbations.pictures.on_device import smoothing
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
        checked_picture(image, "blur")
        # Few draws, so a loop; the filter is separable, and runs in compiled code.
        for row, width in enumerate(self.widths[stream.first : stream.first + draws]):
            ndimage.gaussian_filter(image, width, axes=(1, 2), mode="nearest", output=out[row])

    def lower(self, images: "torch.Tensor", draws: DeviceDraws) -> "torch.Tensor":
        """Returns the copies of the host, made on a device, up to rounding."""
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
