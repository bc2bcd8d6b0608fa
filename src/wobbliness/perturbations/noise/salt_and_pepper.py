"""Salt-and-pepper noise: pixels become black or white."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from wobbliness.perturbations.base import Stream
from wobbliness.perturbations.levels import checked_level, shown_level


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

    def copies(
        self,
        stream: Stream,
        image: Float32[np.ndarray, "..."],
        draws: int,
        out: Float32[np.ndarray, "B ..."],
    ) -> None:
        """Writes the image with its replaced pixels; one random word of each pixel decides."""
        # A word for each pixel, which its channels share.
        place = image.shape if image.ndim < 3 else (1, *image.shape[1:])
        words = stream.words("salt-and-pepper", int(np.prod(place)), draws).reshape(draws, *place)
        # compared as 64-bit integers: of share 1 the limit is 2^32
        limit = np.uint64(round(self.share * 2**32))
        # The lower half of the words that replace is pepper, the upper half salt.
        # White first, then black over it: one comparison less.
        out[:] = image
        np.copyto(out, np.float32(1), where=words < limit)
        np.copyto(out, np.float32(0), where=words < limit // np.uint64(2))
