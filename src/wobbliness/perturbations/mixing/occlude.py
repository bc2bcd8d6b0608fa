"""A grey patch slid over the input."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from wobbliness.perturbations.base import Stream
from wobbliness.perturbations.levels import checked_level, shown_level
from wobbliness.perturbations.shapes import checked_picture

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
        _, *sizes = checked_picture(image, "occlude")
        sides = [round(self.side * size) for size in sizes]
        # Evenly spaced, from the first place of the patch to its last, rounded to pixels.
        starts = [
            np.linspace(0, size - side, self.places).round().astype(int)
            for size, side in zip(sizes, sides, strict=True)
        ]
        out[:] = image
        for row in range(draws):
            # Row by row: the number of a draw is that of its place.
            place = divmod(stream.first + row, self.places)
            top, left = (start[number] for start, number in zip(starts, place, strict=True))
            out[row, :, top : top + sides[0], left : left + sides[1]] = self.value
