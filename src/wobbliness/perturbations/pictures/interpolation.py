"""Values of a picture at places between its pixels, compiled."""

import numpy as np

from wobbliness.runtime.jit import SAME_ORDER, compiled


def _interpolate(image, places, out):  # type: ignore[no-untyped-def]
    channels, height, width = image.shape
    for row in range(len(places)):
        for y in range(height):
            for x in range(width):
                # Beyond the edge its last pixel is repeated.
                down = min(max(places[row, 0, y, x], 0), height - 1)
                across = min(max(places[row, 1, y, x], 0), width - 1)
                # Places are not negative here, so that truncation is the floor.
                top, left = int(down), int(across)
                bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
                below, beside = np.float32(down - top), np.float32(across - left)
                for c in range(channels):
                    # Along the upper row, along the lower one, then between both.
                    upper = image[c, top, left]
                    upper += beside * (image[c, top, right] - upper)
                    lower = image[c, bottom, left]
                    lower += beside * (image[c, bottom, right] - lower)
                    out[row, c, y, x] = upper + below * (lower - upper)


interpolate = compiled(_interpolate, fastmath=SAME_ORDER)
"""interpolate(image, places, out) fills out `(B, C, H, W)` with values of a picture, linearly.

`image` `(C, H, W)` float32; `places` `(B, 2, H, W)` floats, the row and the column in the picture
of each pixel of each copy.
"""
