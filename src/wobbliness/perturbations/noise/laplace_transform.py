"""Random bits to Laplace values, and flows to pixels: loops over one draw, compiled.

As in `box_muller`, no loop has a branch, so that the compiler turns it into vector instructions.
"""

import numpy as np
from numba import float32, int32

from wobbliness.perturbations.noise.box_muller import (
    HALF,
    MANTISSA_BITS,
    ONE,
    SQRT_HALF_BITS,
    natural_log,
)
from wobbliness.perturbations.noise.uniform import HALF_UNIT, UNIFORM_BITS, UNIT
from wobbliness.runtime.jit import SAME_ORDER, compiled

SHIFT = np.uint32(32 - UNIFORM_BITS)
TWO = np.float32(2)


# the compiler infers its own types
def _transform(words, draws):  # type: ignore[no-untyped-def]
    size = draws.shape[1]
    mantissa, exponents = np.empty(size, np.float32), np.empty(size, np.float32)
    bits = mantissa.view(np.int32)
    for row in range(draws.shape[0]):
        # v = u - 1/2 in (-1/2, 1/2), kept for its sign. 1 - 2 |v| is exact, and never 0.
        for j in range(size):
            centred = float32(int32(words[row, j] >> SHIFT)) * UNIT + HALF_UNIT - HALF
            draws[row, j] = centred
            mantissa[j] = ONE - TWO * abs(centred)
        # The mantissa in [sqrt(1/2), sqrt(2)) and the exponent, by the bits of both.
        for j in range(size):
            exponent = (bits[j] - SQRT_HALF_BITS) >> MANTISSA_BITS
            bits[j] -= exponent << MANTISSA_BITS
            exponents[j] = float32(exponent)
        # -ln(1 - 2 |v|) gets the sign of v.
        for j in range(size):
            logarithm = natural_log(mantissa[j], exponents[j])
            draws[row, j] = logarithm if draws[row, j] < 0 else -logarithm


fill_laplace = compiled(_transform, fastmath=SAME_ORDER)
"""fill_laplace(words, draws) fills draws `(B, size)` float32 with Laplace values of scale 1.

`words` `(B, size)` uint32 hold the bits of each draw.
"""


# What leaves a pixel arrives at its neighbour, so the sum of a channel stays.
def _pass_down(copy, scale, flow):  # type: ignore[no-untyped-def]
    for y in range(flow.shape[0]):
        for x in range(flow.shape[1]):
            copy[y, x] -= scale * flow[y, x]
            copy[y + 1, x] += scale * flow[y, x]


def _pass_right(copy, scale, flow):  # type: ignore[no-untyped-def]
    for y in range(flow.shape[0]):
        # All that leaves first: one loop would wait for each pixel's neighbour.
        for x in range(flow.shape[1]):
            copy[y, x] -= scale * flow[y, x]
        for x in range(flow.shape[1]):
            copy[y, x + 1] += scale * flow[y, x]


pass_down = compiled(_pass_down, fastmath=SAME_ORDER)
pass_right = compiled(_pass_right, fastmath=SAME_ORDER)


def _let_flow(image, scale, down, right, out):  # type: ignore[no-untyped-def]
    for row in range(len(out)):
        for c in range(len(image)):
            # Pixel by pixel: a slice takes the compiler ten times as long.
            for y in range(image.shape[1]):
                for x in range(image.shape[2]):
                    out[row, c, y, x] = image[c, y, x]
            pass_down(out[row, c], scale, down[row, c])
            pass_right(out[row, c], scale, right[row, c])


let_flow = compiled(_let_flow, fastmath=SAME_ORDER)
"""let_flow(image, scale, down, right, out) moves brightness between neighbours.

`image` `(C, H, W)`; `down` `(B, C, H - 1, W)` and `right` `(B, C, H, W - 1)` times `scale` flow to
the next row and the next column; out `(B, C, H, W)`. All are float32.
"""
