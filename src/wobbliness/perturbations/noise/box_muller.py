"""Random bits to standard-normal values: Box and Muller (1958) in float32, compiled.

Every loop runs over one draw and has no branch, so that the compiler turns it into vector
instructions. Logarithm, sine and cosine are the polynomials of the Cephes library (Moshier 1989,
`logf`, `sinf`, `cosf`), good to about one unit in the last place.
"""

import numpy as np
from numba import float32, int32

from wobbliness.runtime.jit import SAME_ORDER, compiled

HALF, ONE, MINUS_TWO = np.float32(0.5), np.float32(1), np.float32(-2)
RADIUS_UNIT = np.float32(2.0**-32)
ANGLE_UNIT = np.float32(np.pi / 2**15)
# A quarter turn is 2^14 steps; half of one is added to round to the nearest.
ROUND, QUARTER_BITS = np.int32(2**13), np.int32(14)
# Of float32: how many bits lie below the exponent, and sqrt(1/2) as an integer.
MANTISSA_BITS, SQRT_HALF_BITS = np.int32(23), np.int32(0x3F3504F3)
# ln 2 in two parts: a whole exponent times the first is exact in float32.
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
# Coefficients, from the highest power down, of what follows the first terms: x - x^2 / 2 of
# ln(1 + x), x of sin(x), and 1 - x^2 / 2 of cos(x).
LOG_1, LOG_2, LOG_3 = (
    np.float32(7.0376836292e-2),
    np.float32(-1.1514610310e-1),
    np.float32(1.1676998740e-1),
)
LOG_4, LOG_5, LOG_6 = (
    np.float32(-1.2420140846e-1),
    np.float32(1.4249322787e-1),
    np.float32(-1.6668057665e-1),
)
LOG_7, LOG_8, LOG_9 = (
    np.float32(2.0000714765e-1),
    np.float32(-2.4999993993e-1),
    np.float32(3.3333331174e-1),
)
SIN_1, SIN_2, SIN_3 = (
    np.float32(-1.9515295891e-4),
    np.float32(8.3321608736e-3),
    np.float32(-1.6666654611e-1),
)
COS_1, COS_2, COS_3 = (
    np.float32(2.443315711809948e-5),
    np.float32(-1.388731625493765e-3),
    np.float32(4.166664568298827e-2),
)


# the compiler infers its own types
def _natural_log(mantissa, exponent):  # type: ignore[no-untyped-def]
    x = mantissa - ONE
    square = x * x
    y = (
        ((((((LOG_1 * x + LOG_2) * x + LOG_3) * x + LOG_4) * x + LOG_5) * x + LOG_6) * x + LOG_7)
        * x
        + LOG_8
    ) * x + LOG_9
    # ln(mantissa) + exponent ln 2, small terms first.
    y = y * x * square + exponent * LN2_LOW - HALF * square
    return x + y + exponent * LN2_HIGH


natural_log = compiled(_natural_log, fastmath=SAME_ORDER)
"""natural_log(mantissa, exponent) is ln(mantissa * 2^exponent), mantissa near 1; both float32."""


def _transform(radius_bits, angle_bits, first_angle, draws):  # type: ignore[no-untyped-def]
    size = draws.shape[1]
    num_pairs = (size + 1) // 2
    mantissa, radius = np.empty(num_pairs, np.float32), np.empty(num_pairs, np.float32)
    bits = mantissa.view(np.int32)
    for row in range(draws.shape[0]):
        # u in (0, 1]: half a unit is added, so that its logarithm is finite.
        for j in range(num_pairs):
            mantissa[j] = (float32(radius_bits[row, j]) + HALF) * RADIUS_UNIT
        # u = mantissa * 2^exponent with the mantissa in [sqrt(1/2), sqrt(2)), by the bits of u:
        # `bits` is the memory of `mantissa`.
        for j in range(num_pairs):
            exponent = (bits[j] - SQRT_HALF_BITS) >> MANTISSA_BITS
            bits[j] -= exponent << MANTISSA_BITS
            radius[j] = float32(exponent)
        # sqrt(-2 ln u): `radius` holds the exponents until then.
        for j in range(num_pairs):
            radius[j] = np.sqrt(MINUS_TWO * natural_log(mantissa[j], radius[j]))
        # The angle is reduced to an eighth of a turn on either side of the nearest quarter, which
        # then exchanges sine and cosine (odd) and turns their signs. Cosines go to the first half
        # of the draw, sines to `mantissa`, whose content is no longer needed.
        for j in range(num_pairs):
            steps = int32(angle_bits[row, first_angle + j])
            quarter = (steps + ROUND) >> QUARTER_BITS
            angle = float32(steps - (quarter << QUARTER_BITS)) * ANGLE_UNIT
            square = angle * angle
            sine = ((SIN_1 * square + SIN_2) * square + SIN_3) * square * angle + angle
            cosine = (
                ((COS_1 * square + COS_2) * square + COS_3) * square * square - HALF * square + ONE
            )
            is_odd = (quarter & int32(1)) != 0
            x, y = (-sine if is_odd else cosine), (cosine if is_odd else sine)
            length = -radius[j] if (quarter & int32(2)) != 0 else radius[j]
            draws[row, j] = x * length
            mantissa[j] = y * length
        # Of an odd size the last sine is left over.
        for j in range(size - num_pairs):
            draws[row, num_pairs + j] = mantissa[j]


fill_normal = compiled(_transform, fastmath=SAME_ORDER)
"""fill_normal(radius_bits, angle_bits, first_angle, draws) fills draws `(B, size)` float32.

`radius_bits` `(B, ...)` uint32 and `angle_bits` `(B, ...)` int16, both contiguous, hold the bits of
each draw, from column 0 and from column `first_angle` on. Value j of the first half of a draw is
sqrt(-2 ln u) cos t, of the second half the same with the sine.
"""


def _scale_and_add(draws, scale, image, out):  # type: ignore[no-untyped-def]
    for row in range(draws.shape[0]):
        for j in range(draws.shape[1]):
            out[row, j] = scale * draws[row, j] + image[j]


# Without fused multiply-add: equal to the bit to two steps of numpy, with one less way to memory.
scale_and_add = compiled(_scale_and_add, fastmath=frozenset())
"""scale_and_add(draws, scale, image, out) fills out `(B, size)` with scale * draws + image."""


def _add_in_boxes(draws, scale, image, bounds, out):  # type: ignore[no-untyped-def]
    channels, height, width = image.shape
    for row in range(len(out)):
        top, bottom = bounds[row, 0, 0], bounds[row, 0, 1]
        left, right = bounds[row, 1, 0], bounds[row, 1, 1]
        for c in range(channels):
            for y in range(height):
                for x in range(width):
                    out[row, c, y, x] = image[c, y, x]
            for y in range(top, bottom):
                for x in range(left, right):
                    out[row, c, y, x] = scale * draws[row, c, y, x] + image[c, y, x]


add_in_boxes = compiled(_add_in_boxes, fastmath=frozenset())
"""add_in_boxes(draws, scale, image, bounds, out) is `scale_and_add` inside of boxes.

`draws` and `out` `(B, C, H, W)`; `bounds` `(B, 2, 2)`, the first row and the one after the last of
each box, then the columns. The image stays as it is elsewhere.
"""
