"""Corruptions as public libraries compute them: one stored picture at a time, by scipy and Pillow.

The published loop of TeCo corrupts with them. Formulas and strengths are those of
`perturbations.pictures.corruptions`; those that are faster there have their published form here.
"""

from collections.abc import Callable
from types import MappingProxyType

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image
from scipy import ndimage

from wobbliness.perturbations.pictures import corruptions
from wobbliness.perturbations.pictures.corrupt import KINDS
from wobbliness.perturbations.pictures.separable import disk_kernel


class NumpyRandom:
    """Draws of numpy's generator, one picture at a time."""

    def __init__(self, rng: np.random.Generator, shape: tuple[int, ...]) -> None:
        self.rng, self._shape = rng, (1, *shape)

    @property
    def normal(self) -> np.ndarray:
        """Standard-normal draws."""
        return self.rng.standard_normal(self._shape)

    @property
    def uniform(self) -> np.ndarray:
        """Draws from [0, 1)."""
        return self.rng.random(self._shape)


def shot_noise(
    picture: Float32[np.ndarray, "C H W"],
    severity: int,
    random: NumpyRandom,
    row: int,  # noqa: ARG001
) -> np.ndarray:
    """Counts photons."""
    photons = corruptions.SHOT_PHOTONS[severity]
    return np.asarray(random.rng.poisson(picture * photons) / photons)


def gaussian_blur(
    picture: Float32[np.ndarray, "C H W"],
    severity: int,
    random: NumpyRandom,  # noqa: ARG001
    row: int,  # noqa: ARG001
) -> np.ndarray:
    """Blurs by a Gaussian kernel."""
    width = corruptions.BLUR_WIDTH[severity]
    return np.asarray(ndimage.gaussian_filter(picture, width, axes=(1, 2), mode="nearest"))


def defocus_blur(
    picture: Float32[np.ndarray, "C H W"],
    severity: int,
    random: NumpyRandom,  # noqa: ARG001
    row: int,  # noqa: ARG001
) -> np.ndarray:
    """Blurs by a disk with a smoothed edge."""
    kernel = disk_kernel(*corruptions.DEFOCUS[severity])
    return np.asarray(ndimage.correlate(picture, kernel[None], mode="mirror"))


def zoom_blur(
    picture: Float32[np.ndarray, "C H W"],
    severity: int,
    random: NumpyRandom,  # noqa: ARG001
    row: int,  # noqa: ARG001
) -> np.ndarray:
    """Averages the picture with itself at rising zoom."""
    total = picture.copy()
    factors = 1 + 0.01 * np.arange(corruptions.ZOOM_STEPS[severity])
    for factor in factors:
        total += _zoomed(picture, factor)
    return np.asarray(total / (len(factors) + 1))


def pixelate(
    picture: Float32[np.ndarray, "C H W"],
    severity: int,
    random: NumpyRandom,  # noqa: ARG001
    row: int,  # noqa: ARG001
) -> np.ndarray:
    """Resizes to a smaller picture and back, by Pillow's box filter."""
    height, width = picture.shape[1:]
    share = corruptions.PIXELATE[severity]
    # Rounded down, as in the original.
    small = max(1, int(width * share)), max(1, int(height * share))
    pictures = (Image.fromarray(channel).resize(small, Image.Resampling.BOX) for channel in picture)
    return np.stack(
        [np.asarray(each.resize((width, height), Image.Resampling.BOX)) for each in pictures]
    )


def _zoomed(picture: Float32[np.ndarray, "C H W"], factor: float) -> np.ndarray:
    """Returns the middle of a picture, enlarged to its size."""
    size = np.array(picture.shape[1:])
    cropped = np.ceil(size / factor).astype(int)
    top, left = (size - cropped) // 2
    middle = picture[:, top : top + cropped[0], left : left + cropped[1]]
    large = ndimage.zoom(middle, (1, factor, factor), order=1)
    top, left = (np.array(large.shape[1:]) - size) // 2
    return np.asarray(large[:, top : top + size[0], left : left + size[1]])


PUBLISHED: MappingProxyType[str, Callable[..., np.ndarray]] = MappingProxyType(
    {
        "shot-noise": shot_noise,
        "gaussian-blur": gaussian_blur,
        "defocus-blur": defocus_blur,
        "zoom-blur": zoom_blur,
        "pixelate": pixelate,
    }
)


def corrupted_picture(
    picture: UInt8[np.ndarray, "C H W"], kind: str, severity: int, rng: np.random.Generator
) -> UInt8[np.ndarray, "C H W"]:
    """Returns a stored picture, corrupted.

    Args:
        picture: 8 bits a value.
        kind: one of `corrupt.KINDS`.
        severity: 1 to 5.
        rng: of the kinds that are noise.
    """
    function = PUBLISHED.get(kind) or KINDS[kind]
    as_floats = picture.astype(np.float32) / 255
    corrupted = function(as_floats, severity - 1, NumpyRandom(rng, picture.shape), 0)
    return np.asarray(np.clip(corrupted, 0, 1) * 255).astype(np.uint8)
