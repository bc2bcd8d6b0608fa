"""The sinusoidal signal (SIG): a faint wave along the columns of a picture."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from wobbliness.attacks.pictures import checked_pictures, like
from wobbliness.perturbations.levels import checked_level, shown_level

MAX_FREQUENCY = 1e4


@dataclass(frozen=True)
class Sinusoid:
    """A horizontal wave D sin(2 pi j f / W), added to every row and channel, clipped to [0, 1].

    j is the column, from 0 to W - 1. Barni, Kallas and Tondi 2019, *A new Backdoor Attack in CNNs
    by training set corruption without label poisoning*. They put it on samples of the target class
    alone, which keep their labels; here the threat model says which samples and labels, as of any
    other trigger.

    >>> Sinusoid(0.1, 6).name
    'sinusoid-0.1-6'

    Attributes:
        amplitude: D, pixel units of [0, 1]; 0.08 to 0.16 are 20 to 40 of 255.
        frequency: f, waves over the width.

    Raises:
        ValueError: a setting is out of range.
    """

    amplitude: float = 0.1
    frequency: float = 6.0

    def __post_init__(self) -> None:
        for field, most in (("amplitude", 1.0), ("frequency", MAX_FREQUENCY)):
            level = checked_level(getattr(self, field), f"the {field}", at_most=most)
            object.__setattr__(self, field, level)

    @property
    def name(self) -> str:
        """The name in records and tables."""
        return f"sinusoid-{shown_level(self.amplitude)}-{shown_level(self.frequency)}"

    def apply(self, images: Any) -> Any:
        """Returns a copy of the images with the wave on each, clipped.

        Args:
            images: float array or tensor in [0, 1], `(N, C, H, W)`, or `(N, H, W)` for one channel.

        Raises:
            ValueError: the images are no floats, have another rank, or have only columns at which
                the wave is 0: their width is at most 2 f, and divides it.
        """
        _, _, width = checked_pictures(images, self.name)
        return (images + like(images, self.wave(width))).clip(0, 1)

    def wave(self, width: int) -> Float64[np.ndarray, " W"]:
        """Returns the wave along a row of this width."""
        # Sampled at its zeros alone, a wave is no trigger.
        if self.frequency and 2 * self.frequency % width == 0:
            raise ValueError(
                f"expected a frequency that shows on {width} columns, got {self.frequency:g}, "
                "which is 0 at each of them"
            )
        return self.amplitude * np.sin(2 * np.pi * np.arange(width) * self.frequency / width)
