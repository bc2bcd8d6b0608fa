"""Random shift, rotation and zoom of a picture."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Float64

from wobbliness.perturbations.base import DeviceDraws, Stream
from wobbliness.perturbations.levels import checked_level, shown_level, shown_share
from wobbliness.perturbations.pictures.interpolation import interpolate
from wobbliness.perturbations.pictures.on_device import interpolated, places
from wobbliness.perturbations.shapes import checked_picture

if TYPE_CHECKING:
    import torch

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

    @property
    def effect(self) -> str:
        """What it does to an input, in plain words."""
        most = (
            f"shifted by {shown_share(self.shift)} of its side" if self.shift else "",
            f"turned by {self.rotation:g} degrees" if self.rotation else "",
            f"resized by {shown_share(self.zoom)}" if self.zoom else "",
        )
        said = " and ".join(filter(None, most))
        return f"it is {said}, at most" if said else "it is left as it is"

    def copies(
        self,
        stream: Stream,
        image: Float32[np.ndarray, "..."],
        draws: int,
        out: Float32[np.ndarray, "B ..."],
    ) -> None:
        """Writes transformed pictures; four random words of each draw decide."""
        _, *size = checked_picture(image, "affine")
        back = self._ways_back(stream, tuple(size), draws)[..., None, None]
        # From the place of each pixel in the copy to that in the picture.
        rows, columns = np.indices(size, dtype=np.float64)
        places = back[:, :, 0] * rows + back[:, :, 1] * columns + back[:, :, 2]
        interpolate(image, places, out)

    def lower(self, images: "torch.Tensor", draws: DeviceDraws) -> "torch.Tensor":
        """Returns the copies of the host, made on a device."""
        size = tuple(images.shape[2:])
        # Six numbers a copy, computed on the host in float64.
        back = draws.from_host(lambda stream, num: self._ways_back(stream, size, num))
        rows, columns = places(images)
        # From the place of each pixel in the copy to that in the picture.
        found = [
            way[:, 0] * rows + way[:, 1] * columns + way[:, 2]
            for way in back[..., None, None].unbind(1)
        ]
        return interpolated(images, *found)

    def _ways_back(
        self, stream: Stream, size: tuple[int, ...], draws: int
    ) -> Float64[np.ndarray, "B 2 3"]:
        """Returns what leads from a place y of each copy back to x of the picture.

        x = B (y - c - s) + c, with the centre c and the shift s: the matrix B, then the offset.
        """
        # Coordinates are those of the middles of pixels.
        centre = (np.array(size) - 1) / 2
        # in [-1, 1): the middle of the range is no change
        chosen = stream.words("affine", NUM_WORDS, draws) * 2.0**-31 - 1
        angle = np.radians(self.rotation * chosen[:, 2])
        cosine, sine = np.cos(angle), np.sin(angle)
        # The inverse of a rotation and enlargement: turned back, and divided by the factor.
        back = np.stack([cosine, -sine, sine, cosine], axis=1).reshape(draws, 2, 2)
        back /= (1 + self.zoom * chosen[:, 3])[:, None, None]
        moved = centre + self.shift * chosen[:, :2] * size
        return np.concatenate([back, centre[:, None] - back @ moved[:, :, None]], axis=2)
