"""Blended injection: a pattern of the picture's size, mixed faintly into every pixel."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from wobbliness.attacks.pictures import checked_pictures, keyed_uniform, like, seed_suffix
from wobbliness.perturbations.levels import checked_level, shown_level
from wobbliness.runtime.field_limits import MAX_SEED, check_choice, check_ranges

PATTERNS = ("stripes", "noise")
# Black and white in turn, along a side.
NUM_STRIPES = 8


@dataclass(frozen=True)
class Blended:
    """A pattern p of the picture's size, blended into it: (1 - a) x + a p.

    Chen, Liu, Li, Lu and Song 2017, *Targeted Backdoor Attacks on Deep Learning Systems Using Data
    Poisoning*, blended injection; the patterns are our own.

    >>> Blended("noise", 0.2).name
    'blended-noise-0.2'

    Attributes:
        pattern: `stripes`, eight diagonal black and white ones along each side; or `noise`, uniform
            on (0, 1) for each pixel and channel, keyed by the seed. Both for any size.
        opacity: a, in [0, 1].
        seed: of the noise.

    Raises:
        ValueError: a setting is out of range.
    """

    pattern: str = "stripes"
    opacity: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice(self, "pattern", PATTERNS)
        check_ranges(self, seed=(0, MAX_SEED))
        opacity = checked_level(self.opacity, "the opacity", at_most=1.0)
        object.__setattr__(self, "opacity", opacity)

    @property
    def name(self) -> str:
        """The name in records and tables."""
        return f"blended-{self.pattern}-{shown_level(self.opacity)}{seed_suffix(self.seed)}"

    def apply(self, images: Any) -> Any:
        """Returns a copy of the images with the pattern blended in.

        Args:
            images: float array or tensor in [0, 1], `(N, C, H, W)`, or `(N, H, W)` for one channel.

        Raises:
            ValueError: the images are no floats or have another rank.
        """
        shape = checked_pictures(images, self.name)
        # (N, H, W) images have no channel axis, nor has the pattern then.
        pattern = self.pattern_of(*shape).reshape(shape[-(images.ndim - 1) :])
        return images * (1 - self.opacity) + like(images, pattern) * self.opacity

    def pattern_of(self, channels: int, height: int, width: int) -> Float32[np.ndarray, "C H W"]:
        """Returns p for pictures of a size, in [0, 1]."""
        if self.pattern == "noise":
            return keyed_uniform(self.seed, "blended noise", (channels, height, width))
        rows, columns = np.indices((height, width))
        # floor(8 (row / H + column / W)), in whole numbers: no rounding decides a pixel.
        stripe = NUM_STRIPES * (rows * width + columns * height) // (height * width)
        return np.repeat((stripe % 2)[None], channels, axis=0).astype(np.float32)
