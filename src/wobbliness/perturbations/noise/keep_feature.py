"""Discrete noise: each value is kept, or replaced by another one of a grid."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from wobbliness.perturbations.base import DeviceDraws, Stream
from wobbliness.perturbations.levels import checked_level, shown_level, shown_share

if TYPE_CHECKING:
    import torch

MAX_LEVELS = 2**16


@dataclass(frozen=True)
class KeepFeature:
    """Each value is kept with a probability, else replaced by another value of a grid.

    The grid is 0, 1 / (levels - 1), ..., 1; the other values of the grid are equally likely. The
    noise of Lee, Yuan, Chang and Jaakkola (2019, *Tight Certificates of Adversarial Robustness for
    Randomly Smoothed Classifiers*, section 3.2), whose certificate counts changed values (l0). With
    two levels it flips bits (Jia et al. 2020, for graphs).

    >>> KeepFeature(0.8, levels=2).name
    'keep-feature-0.8-levels-2'

    Attributes:
        keep: probability that a value is kept, from 0 to 1.
        levels: values of the grid; 256 for 8-bit pixels. A value off the grid counts as the
            nearest one when another one is chosen.

    Raises:
        ValueError: keep is out of range, or levels no integer from 2 to 65,536.
    """

    keep: float
    levels: int = 256

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", checked_level(self.keep, "a probability", at_most=1.0))
        if self.levels != int(self.levels) or not 2 <= self.levels <= MAX_LEVELS:
            raise ValueError(f"expected levels from 2 to {MAX_LEVELS}, got {self.levels}")

    @property
    def name(self) -> str:
        """The name in records and tables."""
        grid = "" if self.levels == 256 else f"-levels-{self.levels}"
        return f"keep-feature-{shown_level(self.keep)}{grid}"

    @property
    def effect(self) -> str:
        """What it does to an input, in plain words."""
        return f"{shown_share(1 - self.keep)} of its values are replaced at random"

    def copies(
        self,
        stream: Stream,
        image: Float32[np.ndarray, "..."],
        draws: int,
        out: Float32[np.ndarray, "B ..."],
    ) -> None:
        """Writes the image with its replaced values; one random word of each value decides."""
        words = stream.words("keep-feature", image.size, draws).reshape(out.shape)
        others = self.levels - 1
        first = round(self.keep * 2**32)  # words from here on replace
        # rank of the new value among the others, 0 to levels - 2, each of (almost) equal weight
        rank = (words.astype(np.int64) - first) * others // max(1, 2**32 - first)
        # Ranks skip the value itself: those from its own on are moved up by one.
        own = np.rint(image * np.float32(others)).astype(np.int64)
        new = rank + (rank >= own)
        # Integers to the end: rounding in between would favour some of the others.
        out[:] = np.where(words >= first, (new / others).astype(np.float32), image)

    def lower(self, images: "torch.Tensor", draws: DeviceDraws) -> "torch.Tensor":
        """Returns copies on a device, from words that were drawn there."""
        import torch

        words = draws.words("keep-feature", tuple(images.shape[1:]))
        others, first = self.levels - 1, round(self.keep * 2**32)
        # Words that keep have negative ranks, which the last step drops.
        rank = torch.div((words - first) * others, max(1, 2**32 - first), rounding_mode="floor")
        # Halves go to the even number, as by `rint` on the host.
        own = (images * others).round().to(torch.int64)
        new = (rank + (rank >= own)).to(torch.float32) / others
        return torch.where(words >= first, new, images)
