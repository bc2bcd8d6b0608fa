"""A grey patch slid over the input."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Int

from wobbliness.perturbations.base import DeviceDraws, Stream
from wobbliness.perturbations.levels import checked_level, shown_level, shown_share
from wobbliness.perturbations.shapes import checked_picture, inside

if TYPE_CHECKING:
    import torch

MAX_PLACES = 32


@dataclass(frozen=True)
class Occlude:
    """A square patch of one brightness hides a part of the picture, at each place of a grid.

    Occlusion sensitivity (Zeiler and Fergus 2014). Draw j has place j, row by row, so there are
    places^2 draws; the first place is the upper left corner, the last the lower right one.

    >>> Occlude(0.25).name, Occlude(0.25).num_draws
    ('occlude-0.25-5', 25)

    Attributes:
        side: of the patch, as a share of the picture's side, rounded to pixels.
        places: of the patch in each row and in each column.
        value: brightness of the patch, from 0 to 1.

    Raises:
        ValueError: side or value are out of range, or places not from 1 to 32.
    """

    side: float
    places: int = 5
    value: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "side", checked_level(self.side, "a side", at_most=1.0))
        object.__setattr__(self, "value", checked_level(self.value, "a value", at_most=1.0))
        if self.places != int(self.places) or not 1 <= self.places <= MAX_PLACES:
            raise ValueError(f"expected places from 1 to {MAX_PLACES}, got {self.places}")

    @property
    def name(self) -> str:
        """The name in records and tables."""
        value = "" if self.value == 0.5 else f"-value-{shown_level(self.value)}"
        return f"occlude-{shown_level(self.side)}-{self.places}{value}"

    @property
    def effect(self) -> str:
        """What it does to an input, in plain words."""
        return f"a square of one brightness covers {shown_share(self.side**2)} of it"

    @property
    def num_draws(self) -> int:
        """The number of places."""
        return self.places**2

    def copies(
        self,
        stream: Stream,
        image: Float32[np.ndarray, "..."],
        draws: int,
        out: Float32[np.ndarray, "B ..."],
    ) -> None:
        """Writes the image with the patch at the next places."""
        _, *size = checked_picture(image, "occlude")
        out[:] = image
        bounds = self._bounds(tuple(size))[stream.first : stream.first + draws].tolist()
        for row, ((top, bottom), (left, right)) in enumerate(bounds):
            out[row, :, top:bottom, left:right] = self.value

    def lower(self, images: "torch.Tensor", draws: DeviceDraws) -> "torch.Tensor":
        """Returns the copies of the host, made on a device."""
        size = tuple(images.shape[2:])
        # Nothing is random: the table of all places is sent once, and rows look theirs up.
        bounds = draws.constant(f"{self.name} of {size}", lambda: self._bounds(size))
        return images.masked_fill(inside(bounds[draws.numbers()], size), self.value)

    def _bounds(self, size: tuple[int, ...]) -> Int[np.ndarray, "D 2 2"]:
        """Returns where the patch is in each draw, as `BoxSides.bounds` does."""
        bounds = np.empty((self.places, self.places, 2, 2), np.int64)
        for axis, length in enumerate(size):
            side = round(self.side * length)
            # Evenly spaced, from the first place of the patch to its last, rounded to pixels.
            starts = np.linspace(0, length - side, self.places).round().astype(np.int64)
            # Row by row: the number of a draw is that of its place.
            along = starts[:, None] if axis == 0 else starts[None]
            bounds[:, :, axis, 0], bounds[:, :, axis, 1] = along, along + side
        return bounds.reshape(-1, 2, 2)
