"""Gaussian filters of pictures as matrices, one for each axis: they are linear and separable."""

from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float32
from scipy import ndimage

# What lies beyond the edge: its last pixel, or the picture's mirror image.
Edge: TypeAlias = Literal["nearest", "reflect"]


@lru_cache(maxsize=64)
def smoothing(size: int, widths: tuple[float, ...], *, mode: Edge) -> Float32[np.ndarray, "D N N"]:
    """Returns a matrix for each width that smooths along a side by a Gaussian kernel.

    Args:
        size: of the side.
        widths: standard deviations of the kernel, in pixels.
        mode: of the edge, as in `scipy.ndimage`.
    """
    # A filter is linear: its matrix is what it makes of the unit vectors, edges included.
    units = np.eye(size)
    matrices = [ndimage.gaussian_filter(units, width, axes=(0,), mode=mode) for width in widths]
    made = np.stack(matrices).astype(np.float32)
    # The cache gives all callers the same array.
    made.setflags(write=False)
    return made
