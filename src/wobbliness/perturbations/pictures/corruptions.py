"""Formulas of ten corruptions (Hendrycks and Dietterich 2019), strengths of their CIFAR-10-C.

Each takes a picture `(C, H, W)` in [0, 1], the severity from 0 to 4, and random draws with the row
to use; it returns a picture that may leave [0, 1].
"""

from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32

from wobbliness.perturbations.base import Stream
from wobbliness.perturbations.noise.gaussian import standard_normal
from wobbliness.perturbations.noise.uniform import uniform_draws
from wobbliness.perturbations.pictures.poisson import quantiles
from wobbliness.perturbations.pictures.separable import (
    Filters,
    disk_filters,
    enlargements,
    gaussian_filters,
    pixelations,
)

GAUSSIAN_STD = (0.04, 0.06, 0.08, 0.09, 0.10)
SHOT_PHOTONS = (500, 250, 100, 75, 50)
IMPULSE_SHARE = (0.01, 0.02, 0.03, 0.05, 0.07)
SPECKLE_STD = (0.06, 0.1, 0.12, 0.16, 0.2)
BLUR_WIDTH = (0.4, 0.6, 0.7, 0.8, 1.0)
# radius of the disk, and width of the kernel that smooths its edge
DEFOCUS = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))
ZOOM_STEPS = (6, 11, 16, 21, 26)
BRIGHTNESS = (0.05, 0.1, 0.15, 0.2, 0.3)
CONTRAST = (0.75, 0.5, 0.4, 0.3, 0.15)
PIXELATE = (0.95, 0.9, 0.85, 0.75, 0.65)


@runtime_checkable
class Random(Protocol):
    """Random draws of several copies."""

    @property
    def normal(self) -> Float[np.ndarray, "B C H W"]:
        """Standard-normal draws."""
        ...

    @property
    def uniform(self) -> Float[np.ndarray, "B C H W"]:
        """Draws from (0, 1)."""
        ...


class KeyedRandom:
    """Random draws of a page of a stream, made when they are first asked for."""

    def __init__(self, stream: Stream, shape: tuple[int, ...], draws: int) -> None:
        self._stream, self._shape, self._draws = stream, shape, draws

    @cached_property
    def normal(self) -> Float32[np.ndarray, "B C H W"]:
        """Standard-normal draws."""
        return standard_normal(self._stream, self._shape, self._draws)

    @cached_property
    def uniform(self) -> Float32[np.ndarray, "B C H W"]:
        """Draws from (0, 1)."""
        made = np.empty((self._draws, *self._shape), np.float32)
        uniform_draws(self._stream, "corrupt", self._shape, self._draws, made)
        return made


def gaussian_noise(
    image: Float32[np.ndarray, "C H W"], severity: int, random: Random, row: int
) -> Float[np.ndarray, "C H W"]:
    """Adds normal noise."""
    return np.asarray(image + np.float32(GAUSSIAN_STD[severity]) * random.normal[row])


def speckle_noise(
    image: Float32[np.ndarray, "C H W"], severity: int, random: Random, row: int
) -> Float[np.ndarray, "C H W"]:
    """Adds normal noise in proportion to each value."""
    return np.asarray(image + image * np.float32(SPECKLE_STD[severity]) * random.normal[row])


def shot_noise(
    image: Float32[np.ndarray, "C H W"], severity: int, random: Random, row: int
) -> Float[np.ndarray, "C H W"]:
    """Counts photons: Poisson numbers of mean c x, divided by c, by their quantile function."""
    photons = SHOT_PHOTONS[severity]
    # In float64: the quantile function needs the tail of u.
    means = image.astype(np.float64).ravel() * photons
    counts = np.empty_like(means)
    quantiles(means, random.uniform[row].astype(np.float64).ravel(), counts)
    return np.asarray(counts.reshape(image.shape) / photons)


def impulse_noise(
    image: Float32[np.ndarray, "C H W"], severity: int, random: Random, row: int
) -> Float[np.ndarray, "C H W"]:
    """Makes a share of the values 0 or 1."""
    share, chance = IMPULSE_SHARE[severity], random.uniform[row]
    return np.asarray(np.where(chance < share, (chance < share / 2).astype(np.float32), image))


def gaussian_blur(
    image: Float32[np.ndarray, "C H W"],
    severity: int,
    random: Random,  # noqa: ARG001
    row: int,  # noqa: ARG001
) -> Float[np.ndarray, "C H W"]:
    """Blurs by a Gaussian kernel."""
    return _filtered(image, gaussian_filters, BLUR_WIDTH[severity])


def defocus_blur(
    image: Float32[np.ndarray, "C H W"],
    severity: int,
    random: Random,  # noqa: ARG001
    row: int,  # noqa: ARG001
) -> Float[np.ndarray, "C H W"]:
    """Blurs by a disk with a smoothed edge."""
    return _filtered(image, disk_filters, *DEFOCUS[severity])


def zoom_blur(
    image: Float32[np.ndarray, "C H W"],
    severity: int,
    random: Random,  # noqa: ARG001
    row: int,  # noqa: ARG001
) -> Float[np.ndarray, "C H W"]:
    """Averages the picture with itself at rising zoom."""
    # Zoom factors 1.00, 1.01, ... up to the largest of this severity.
    factors = tuple((1 + 0.01 * np.arange(ZOOM_STEPS[severity])).tolist())
    return np.asarray((image + _filtered(image, enlargements, factors)) / (len(factors) + 1))


def brightness(
    image: Float32[np.ndarray, "C H W"],
    severity: int,
    random: Random,  # noqa: ARG001
    row: int,  # noqa: ARG001
) -> Float[np.ndarray, "C H W"]:
    """Raises the value of HSV, the largest channel; hue and saturation stay."""
    # The value of HSV is the largest channel; raising it scales all three.
    value = image.max(axis=0, keepdims=True)
    raised = np.minimum(value + np.float32(BRIGHTNESS[severity]), 1)
    # a black pixel has no hue: it becomes grey
    return np.asarray(np.where(value > 0, image / np.maximum(value, 1e-12) * raised, raised))


def contrast(
    image: Float32[np.ndarray, "C H W"],
    severity: int,
    random: Random,  # noqa: ARG001
    row: int,  # noqa: ARG001
) -> Float[np.ndarray, "C H W"]:
    """Lowers the differences from each channel's mean."""
    mean = image.mean(axis=(1, 2), keepdims=True)
    return np.asarray((image - mean) * np.float32(CONTRAST[severity]) + mean)


def pixelate(
    image: Float32[np.ndarray, "C H W"],
    severity: int,
    random: Random,  # noqa: ARG001
    row: int,  # noqa: ARG001
) -> Float[np.ndarray, "C H W"]:
    """Resizes to a smaller picture and back, by a box filter."""
    return _filtered(image, pixelations, PIXELATE[severity])


def _filtered(
    image: Float32[np.ndarray, "C H W"], filters: Filters, *settings: Any
) -> Float32[np.ndarray, "C H W"]:
    """Returns the sum over pairs of matrices of rows @ image @ columns^T."""
    channels, height, width = image.shape
    rows, columns = filters((height, width), *settings)
    # Two products for all pairs: each side's matrices stand beside each other.
    across = (image.reshape(-1, width) @ columns).reshape(channels, height, -1, width)
    return np.asarray(rows @ across.swapaxes(1, 2).reshape(channels, -1, width))
