"""Filters of corruptions as sums of separable ones: pairs of matrices, one for each axis.

All of them are linear. The matrix of a side is what the filter makes of the unit vectors, edges
included.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from jaxtyping import Float32, Float64
from PIL import Image
from scipy import ndimage

from wobbliness.perturbations.pictures.smoothing import smoothing

Pairs: TypeAlias = tuple[Float32[np.ndarray, "N FN"], Float32[np.ndarray, "N FN"]]
Filters: TypeAlias = Callable[..., Pairs]
"""Takes height and width and the settings; returns matrices of rows and transposed of columns."""

# Of a singular value, relative to the largest: rounding.
RANK_TOLERANCE = 1e-10
# Pixels from the middle of a disk's kernel to its edge.
DISK_REACH = 3


@lru_cache(maxsize=64)
def gaussian_filters(size: tuple[int, int], width: float) -> Pairs:
    """Returns the filter of a Gaussian kernel; beyond the edge its last pixel is repeated."""
    rows, columns = (smoothing(length, (width,), mode="nearest") for length in size)
    return _fewest_pairs(rows, columns)


@lru_cache(maxsize=64)
def disk_filters(size: tuple[int, int], radius: float, width: float) -> Pairs:
    """Returns the filter of `disk_kernel`; mirrored at the edge."""
    kernel = disk_kernel(radius, width)
    # Row by row of the kernel: where it reaches, and what it does there.
    rows, columns = _correlations(size[0], np.eye(len(kernel))), _correlations(size[1], kernel)
    return _fewest_pairs(rows, columns)


@lru_cache(maxsize=64)
def enlargements(size: tuple[int, int], factors: tuple[float, ...]) -> Pairs:
    """Returns the sum of enlargements of a picture's middle to its size, by factors of at least 1.

    They are linear interpolations.
    """
    rows, columns = (
        np.stack([_enlargement(length, factor) for factor in factors]) for length in size
    )
    return _fewest_pairs(rows, columns)


@lru_cache(maxsize=64)
def pixelations(size: tuple[int, int], share: float) -> Pairs:
    """Returns resizing to a share of the size, rounded down, and back, by Pillow's box filter."""
    rows, columns = (_pixelation(length, max(1, int(length * share)))[None] for length in size)
    return _fewest_pairs(rows, columns)


def disk_kernel(radius: float, width: float) -> Float64[np.ndarray, "7 7"]:
    """Returns a disk whose edge is smoothed.

    Args:
        radius: of the disk, in pixels.
        width: standard deviation of the three taps that smooth it.
    """
    axis = np.arange(-DISK_REACH, DISK_REACH + 1)
    disk = (axis[:, None] ** 2 + axis**2 <= radius**2).astype(np.float64)
    # Three taps of a Gaussian kernel, normalised.
    taps = np.exp(-np.array([1, 0, 1]) / (2 * width**2))
    return np.asarray(ndimage.convolve(disk / disk.sum(), np.outer(taps, taps) / taps.sum() ** 2))


def _correlations(
    size: int, kernels: Float64[np.ndarray, "F taps"]
) -> Float64[np.ndarray, "F N N"]:
    units = np.eye(size)
    return np.stack([ndimage.correlate1d(units, own, axis=0, mode="mirror") for own in kernels])


def _enlargement(size: int, factor: float) -> Float64[np.ndarray, "N N"]:
    # Rounded up, so that the enlarged part covers the side.
    cropped = int(np.ceil(size / factor))
    first = (size - cropped) // 2
    part = np.eye(size)[first : first + cropped]
    large = ndimage.zoom(part, (factor, 1), order=1)
    # What goes beyond the side is cut off evenly.
    first = (len(large) - size) // 2
    return np.asarray(large[first : first + size])


def _pixelation(size: int, small: int) -> Float32[np.ndarray, "N N"]:
    units = Image.fromarray(np.eye(size, dtype=np.float32))
    made = units.resize((size, small), Image.Resampling.BOX)
    return np.asarray(made.resize((size, size), Image.Resampling.BOX))


def _fewest_pairs(rows: np.ndarray, columns: np.ndarray) -> Pairs:
    """Returns matrices `(F, N, N)` as two `(N, G N)`: of rows, and of columns transposed.

    The sum over pairs is the same; G, at most F, is the fewest that make it.
    """
    # Each pair is a product of two vectors, so that the sum is a matrix, and G its rank.
    (left, upper), (right, lower) = (
        np.linalg.qr(matrices.reshape(len(matrices), -1).T.astype(np.float64))
        for matrices in (rows, columns)
    )
    first, values, second = np.linalg.svd(upper @ lower.T)
    kept = values > RANK_TOLERANCE * values[0]
    rows = (left @ (first[:, kept] * values[kept])).T.reshape(-1, *rows.shape[1:])
    columns = (second[kept] @ right.T).reshape(-1, *columns.shape[1:])
    made = (
        np.ascontiguousarray(np.hstack([*rows]), np.float32),
        np.ascontiguousarray(np.hstack([each.T for each in columns]), np.float32),
    )
    for matrices in made:
        # The cache gives all callers the same array.
        matrices.setflags(write=False)
    return made
