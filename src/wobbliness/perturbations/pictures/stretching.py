"""Contrast of pictures at several factors, compiled: one way through memory."""

import numpy as np

from wobbliness.runtime.jit import compiled

ZERO, ONE = np.float32(0), np.float32(1)


def _stretch(image, middle, factors, out):  # type: ignore[no-untyped-def]
    channels, size = image.shape
    for row in range(len(factors)):
        for c in range(channels):
            for j in range(size):
                value = factors[row] * (image[c, j] - middle[c]) + middle[c]
                out[row, c, j] = min(max(value, ZERO), ONE)


# Without fused multiply-add: equal to the bit to the same steps of numpy.
stretch = compiled(_stretch, fastmath=frozenset())
"""stretch(image, middle, factors, out) fills out `(B, C, size)` float32.

out[b, c] = clip(factors[b] * (image[c] - middle[c]) + middle[c], 0, 1).
"""
