"""Salt-and-pepper noise: pixels become black or white."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from wobbliness.perturbations.base import DeviceDraws, Stream
from wobbliness.perturbations.levels import checked_level, shown_level, shown_share

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class SaltAndPepper:
    """Each pixel is replaced by black or by white, with a probability of share / 2 each.

    All channels of a pixel go together; of a table each value goes on its own. The impulse noise
    of Hendrycks and Dietterich (2019) is this one with the channels apart.

    >>> SaltAndPepper(0.05).name
    'salt-and-pepper-0.05'

    Attributes:
        share: of the pixels that are replaced, from 0 to 1.

    Raises:
        ValueError: share is out of range.
    """

    share: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "share", checked_level(self.share, "a share", at_most=1.0))

    @property
    def name(self) -> str:
        """The name in records and tables."""
        return f"salt-and-pepper-{shown_level(self.share)}"

    @property
    def effect(self) -> str:
        """What it does to an input, in plain words."""
        return f"{shown_share(self.share)} of its pixels turn black or white"

    def copies(
        self,
        stream: Stream,
        image: Float32[np.ndarray, "..."],
        draws: int,
        out: Float32[np.ndarray, "B ..."],
    ) -> None:
        """Writes the image with its replaced pixels; one random word of each pixel decides."""
        place = _places(image.shape)
        words = stream.words("salt-and-pepper", int(np.prod(place)), draws).reshape(draws, *place)
        # compared as 64-bit integers: of share 1 the limit is 2^32
        limit = np.uint64(round(self.share * 2**32))
        # The lower half of the words that replace is pepper, the upper half salt.
        # White first, then black over it: one comparison less.
        out[:] = image
        np.copyto(out, np.float32(1), where=words < limit)
        np.copyto(out, np.float32(0), where=words < limit // np.uint64(2))

    def lower(self, images: "torch.Tensor", draws: DeviceDraws) -> "torch.Tensor":
        """Returns copies on a device, from words that were drawn there."""
        words = draws.words("salt-and-pepper", _places(tuple(images.shape[1:])))
        # Words of a device are int64, so the limit of share 1, 2^32, needs no cast.
        limit = round(self.share * 2**32)
        # The first step makes the copy, the second one writes black over half of the white.
        return images.masked_fill(words < limit, 1.0).masked_fill_(words < limit // 2, 0.0)


def _places(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape of what goes together: the pixels of a picture, all channels at once."""
    return shape if len(shape) < 3 else (1, *shape[1:])
