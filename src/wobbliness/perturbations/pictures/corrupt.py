"""Common corruptions at five severities, the perturbations of TeCo."""

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from jaxtyping import Float32

from wobbliness.perturbations.base import Stream
from wobbliness.perturbations.levels import shown_range
from wobbliness.perturbations.pictures import corruptions
from wobbliness.perturbations.shapes import checked_picture

SEVERITIES = (1, 2, 3, 4, 5)
# Of float32 sums of some 1,000 terms, in steps of 1 / 255.
ROUNDING = np.float32(2e-3)
KINDS: MappingProxyType[str, Callable[..., np.ndarray]] = MappingProxyType(
    {
        "gaussian-noise": corruptions.gaussian_noise,
        "shot-noise": corruptions.shot_noise,
        "impulse-noise": corruptions.impulse_noise,
        "speckle-noise": corruptions.speckle_noise,
        "gaussian-blur": corruptions.gaussian_blur,
        "defocus-blur": corruptions.defocus_blur,
        "zoom-blur": corruptions.zoom_blur,
        "brightness": corruptions.brightness,
        "contrast": corruptions.contrast,
        "pixelate": corruptions.pixelate,
    }
)


@dataclass(frozen=True)
class Corrupt:
    """Draw j is the picture corrupted at severity j, clipped to [0, 1] and cut to 8 bits.

    Ten corruptions of Hendrycks and Dietterich (2019) that are computed by a formula, with the
    strengths of their CIFAR-10-C, made for pictures of 32 pixels. TeCo (Liu et al. 2023) compares
    the severities at which the prediction first changes (`readouts.breaking_severity`). Each
    severity starts from the picture itself.

    >>> Corrupt("zoom-blur").name, Corrupt("contrast", (1, 5)).name
    ('corrupt-zoom-blur', 'corrupt-contrast-1-5')

    Attributes:
        kind: `gaussian-noise`, `shot-noise`, `impulse-noise`, `speckle-noise`, `gaussian-blur`,
            `defocus-blur`, `zoom-blur`, `brightness`, `contrast` or `pixelate`.
        severities: some of 1 to 5; there are as many draws.

    Raises:
        ValueError: an unknown kind, or severities that are not distinct whole numbers from 1 to 5.
    """

    kind: str
    severities: tuple[int, ...] = SEVERITIES

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"expected one of {', '.join(KINDS)}, got {self.kind!r}")
        severities = tuple(self.severities)
        if not severities or sorted(set(severities) & {*SEVERITIES}) != sorted(severities):
            raise ValueError(
                f"expected distinct severities from 1 to 5, at least one, got {severities}"
            )
        object.__setattr__(self, "severities", severities)

    @property
    def name(self) -> str:
        """The name in records and tables."""
        which = () if self.severities == SEVERITIES else map(str, self.severities)
        return "-".join(("corrupt", self.kind, *which))

    @property
    def effect(self) -> str:
        """What it does to an input, in plain words."""
        what = self.kind.replace("-", " ")
        return f"it is corrupted by {what} of severity {shown_range(self.severities)}"

    @property
    def num_draws(self) -> int:
        """The number of severities."""
        return len(self.severities)

    def copies(
        self,
        stream: Stream,
        image: Float32[np.ndarray, "..."],
        draws: int,
        out: Float32[np.ndarray, "B ..."],
    ) -> None:
        """Writes corrupted pictures."""
        checked_picture(image, "corrupt")
        # Drawn for all severities of the page, where the kind asks for them.
        random = corruptions.KeyedRandom(stream, image.shape, draws)
        for row, severity in enumerate(self.severities[stream.first : stream.first + draws]):
            corrupted = KINDS[self.kind](image, severity - 1, random, row)
            np.multiply(corrupted, np.float32(255), out=out[row], casting="same_kind")
        # To whole steps of 1 / 255, downwards, as pictures are stored; a value that rounding has
        # moved off its step still counts as that step.
        out += ROUNDING
        np.clip(out, 0, 255, out=out)
        np.floor(out, out=out)
        out *= np.float32(1 / 255)
