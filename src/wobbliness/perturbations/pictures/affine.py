"""Random shift, rotation and zoom of a picture."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64
from scipy import ndimage

from wobbliness.perturbations.base import Stream
from wobbliness.perturbations.levels import checked_level, shown_level
from wobbliness.perturbations.shapes import checked_picture

NUM_WORDS = 4  # two of the shift, one of the rotation, one of the zoom


@dataclass(frozen=True)
class Affine:
    """A random shift, rotation about the centre, and zoom of each copy, all uniform.

    Values between pixels are interpolated linearly; beyond the edge its last pixel is repeated.
    Certificates for such transformations: Fischer, Baader and Vechev (2020), Li et al. (2021, TSS).

    >>> Affine(shift=0.1, rotation=10).name
    'affine-0.1-10-0'

    Attributes:
        shift: largest one in each direction, as a share of the side, from 0 to 1.
        rotation: largest one to either side, in degrees, from 0 to 180.
        zoom: largest change of size: factors from 1 - zoom to 1 + zoom; from 0 to 0.9.

    Raises:
        ValueError: a setting is out of range.
    """

    shift: float = 0.0
    rotation: float = 0.0
    zoom: float = 0.0

    def __post_init__(self) -> None:
        for field, most in (("shift", 1.0), ("rotation", 180.0), ("zoom", 0.9)):
            level = checked_level(getattr(self, field), f"the largest {field}", at_most=most)
            object.__setattr__(self, field, level)

    @property
    def name(self) -> str:
        """The name in records and tables."""
        return "-".join(("affine", *map(shown_level, (self.shift, self.rotation, self.zoom))))

    def copies(
        self,
        stream: Stream,
        image: Float32[np.ndarray, "..."],
        draws: int,
        out: Float32[np.ndarray, "B ..."],
    ) -> None:
        """Writes transformed pictures; four random words of each draw decide."""
        _, height, width = checked_picture(image, "affine")
        # Coordinates are those of the middles of pixels.
        centre = np.array([height - 1, width - 1]) / 2
        # in [-1, 1): the middle of the range is no change
        chosen = stream.words("affine", NUM_WORDS, draws) * 2.0**-31 - 1
        for row, (down, right, turn, zoom) in enumerate(chosen):
            # From a place y of the copy to x of the picture: x = B (y - c - s) + c.
            back = _back_matrix(self.rotation * turn, 1 + self.zoom * zoom)
            shift = self.shift * np.array([down * height, right * width])
            offset = centre - back @ (centre + shift)
            for channel, transformed in zip(image, out[row], strict=True):
                ndimage.affine_transform(
                    channel, back, offset, order=1, mode="nearest", output=transformed
                )


def _back_matrix(degrees: float, factor: float) -> Float64[np.ndarray, "2 2"]:
    """Returns what leads from a place in the transformed picture back to the original one."""
    # The inverse of a rotation and enlargement: turned back, and divided by the factor.
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[cosine, -sine], [sine, cosine]]) / factor
