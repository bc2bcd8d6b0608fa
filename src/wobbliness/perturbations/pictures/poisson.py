"""Quantiles of Poisson distributions, one for each value of a picture, compiled."""

import numpy as np

from wobbliness.runtime.jit import SAME_ORDER, compiled

# Between two looks whether all quantiles are found.
STEPS = 16


def _quantiles(means, chances, counts):  # type: ignore[no-untyped-def]
    size = len(means)
    # P(X = k), from k = 0 up, and the sum so far: exp(-mean) is a float64 up to means of 700.
    masses, sums = np.exp(-means), np.zeros(size)
    counts[:] = 0
    k, is_any_below = 0, True
    while is_any_below:
        for _ in range(STEPS):
            k += 1
            inverse = 1.0 / k
            for j in range(size):
                sums[j] += masses[j]
                # One more for as long as P(X < k) is below the chance.
                counts[j] += 1.0 if sums[j] < chances[j] else 0.0
                masses[j] *= means[j] * inverse
        is_any_below = False
        for j in range(size):
            # Beyond the last mass of a float64 the sum grows no more, whatever the chance.
            is_any_below |= sums[j] < chances[j] and masses[j] > 0.0


quantiles = compiled(_quantiles, fastmath=SAME_ORDER)
"""quantiles(means, chances, counts) fills counts with the smallest k of P(X <= k) >= chance.

`means` at most 700, `chances` in (0, 1), `counts`: all float64 `(size,)`.
"""
