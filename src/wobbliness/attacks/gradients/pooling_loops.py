"""Loops of a 3 x 3 convolution, a ReLU and a pooling of 2 x 2, forward and backward, compiled.

Window by window. The inner loop runs over the filters and has no branch, so that the compiler turns
it into vector instructions.
"""

import numpy as np

from wobbliness.runtime.jit import ANY_ORDER, SAME_ORDER, compiled

NOTHING, ONE, TWO, THREE = np.float32(0), np.float32(1), np.float32(2), np.float32(3)
NO_PLACE = np.float32(4)  # none of a window's four values is above 0


# Untyped: Numba infers its own types.
def _convolve(images, kernels, bias, pooled, places):  # type: ignore[no-untyped-def]
    num, rows, columns, filters = pooled.shape
    # Reused for every window, and copied out whole.
    greatest = np.empty(filters, np.float32)
    for image in range(num):
        for row in range(rows):
            for column in range(columns):
                # The 4 x 4 pixels that the four outputs of a 2 x 2 window are convolved from.
                x = images[image, 2 * row : 2 * row + 4, 2 * column : 2 * column + 4]
                a0, a1, a2, a3 = x[0, 0], x[0, 1], x[0, 2], x[0, 3]
                b0, b1, b2, b3 = x[1, 0], x[1, 1], x[1, 2], x[1, 3]
                c0, c1, c2, c3 = x[2, 0], x[2, 1], x[2, 2], x[2, 3]
                d0, d1, d2, d3 = x[3, 0], x[3, 1], x[3, 2], x[3, 3]
                # All four values of a window at a time, so that they stay in registers.
                for k in range(filters):
                    p, q, r = kernels[0, k], kernels[1, k], kernels[2, k]
                    s, t, u = kernels[3, k], kernels[4, k], kernels[5, k]
                    v, w, y = kernels[6, k], kernels[7, k], kernels[8, k]
                    first = (
                        p * a0
                        + q * a1
                        + r * a2
                        + s * b0
                        + t * b1
                        + u * b2
                        + v * c0
                        + w * c1
                        + y * c2
                        + bias[k]
                    )
                    second = (
                        p * a1
                        + q * a2
                        + r * a3
                        + s * b1
                        + t * b2
                        + u * b3
                        + v * c1
                        + w * c2
                        + y * c3
                        + bias[k]
                    )
                    third = (
                        p * b0
                        + q * b1
                        + r * b2
                        + s * c0
                        + t * c1
                        + u * c2
                        + v * d0
                        + w * d1
                        + y * d2
                        + bias[k]
                    )
                    fourth = (
                        p * b1
                        + q * b2
                        + r * b3
                        + s * c1
                        + t * c2
                        + u * c3
                        + v * d1
                        + w * d2
                        + y * d3
                        + bias[k]
                    )
                    # Max-pooling and ReLU, by selections instead of branches; the first of equals
                    # wins, as in torch.
                    upper, lower = max(first, second), max(third, fourth)
                    upper_place = ONE if second > first else NOTHING
                    lower_place = THREE if fourth > third else TWO
                    place = lower_place if lower > upper else upper_place
                    highest = max(upper, lower)
                    greatest[k] = max(highest, NOTHING)
                    places[image, row, column, k] = place if highest > NOTHING else NO_PLACE
                pooled[image, row, column, :] = greatest


def _spread(gradients, places, kernels, pixels):  # type: ignore[no-untyped-def]
    num, rows, columns, filters = gradients.shape
    for image in range(num):
        for row in range(rows):
            for column in range(columns):
                gradient, winner = gradients[image, row, column], places[image, row, column]
                # The four outputs of the window, row by row, as in `places`.
                for place in range(4):
                    above, left = 2 * row + place // 2, 2 * column + place % 2
                    here = np.float32(place)
                    # Nine sums over the filters, one for each kernel position, in registers.
                    p = q = r = s = t = u = v = w = y = NOTHING
                    for k in range(filters):
                        # A window's gradient goes to the value that was its maximum, and to no
                        # other.
                        share = gradient[k] if winner[k] == here else NOTHING
                        p += share * kernels[0, k]
                        q += share * kernels[1, k]
                        r += share * kernels[2, k]
                        s += share * kernels[3, k]
                        t += share * kernels[4, k]
                        u += share * kernels[5, k]
                        v += share * kernels[6, k]
                        w += share * kernels[7, k]
                        y += share * kernels[8, k]
                    # The convolution's transpose: each kernel weight to its pixel, summed over the
                    # filters.
                    x = pixels[image, above : above + 3, left : left + 3]
                    x[0, 0] += p
                    x[0, 1] += q
                    x[0, 2] += r
                    x[1, 0] += s
                    x[1, 1] += t
                    x[1, 2] += u
                    x[2, 0] += v
                    x[2, 1] += w
                    x[2, 2] += y


convolve = compiled(_convolve, fastmath=SAME_ORDER)
"""convolve(images, kernels, bias, pooled, places) fills the last two.

From images `(B, H, W)`, kernels `(9, K)` and bias `(K,)`. Both are `(B, H', W', K)`: `pooled` is
the greatest of the four values of a window, or 0; `places` tells which of them it was, row by row,
or `NO_PLACE`.
"""

spread = compiled(_spread, fastmath=ANY_ORDER)
"""spread(gradients, places, kernels, pixels) adds the gradients of the pixels `(B, H, W)`.

From the gradients `(B, H', W', K)` of the pooled values.
"""
