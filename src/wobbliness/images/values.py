"""The range of pixel values, given by their type."""

import numpy as np
from jaxtyping import Float32

_MAX_VALUES = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}


def unit_values(values: np.ndarray) -> Float32[np.ndarray, "..."]:
    """Converts values to float32: 8-bit divided by 255, 16-bit by 65535, floats unchanged.

    Raises:
        ValueError: another type; what its range means is not guessed.
    """
    # Files may hold another byte order than the machine's; the type's meaning is the same.
    native = values.dtype.newbyteorder("=")
    if native in _MAX_VALUES:
        scaled = values.astype(np.float32)
        # In place, and in float32: the rounding is that of the usual `x / 255`.
        scaled /= np.float32(_MAX_VALUES[native])
        return scaled
    if not np.issubdtype(values.dtype, np.floating):
        raise ValueError(
            "expected images as floats in [0, 1] or 8- or 16-bit unsigned integers, got "
            f"{values.dtype}"
        )
    # a value beyond float32 becomes infinite, and is refused by check_range
    with np.errstate(over="ignore"):
        return values.astype(np.float32, copy=False)


def check_range(images: Float32[np.ndarray, "..."], name: str) -> None:
    """Raises ValueError where values lie outside [0, 1] or are NaN, as `measure` does."""
    if images.size == 0:
        raise ValueError(
            f"expected at least one image, and none empty, got shape {images.shape} in {name}"
        )
    # NaN fails both comparisons, so it is refused as well.
    lowest, highest = images.min(), images.max()
    if not (lowest >= 0 and highest <= 1):
        raise ValueError(
            f"expected floats in [0, 1], got values from {lowest} to {highest} in {name}; convert "
            "other ranges before, or store 8-bit integers"
        )
