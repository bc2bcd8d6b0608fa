"""Hartigan's dip: how far a sample is from having one mode."""

import math

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

# Upper 1 % points of sqrt(n) dip of n uniform values, simulated: standard errors of 0.0014 to
# 0.009. Of the laws with one mode the uniform one has the largest, but for few values.
SIZES = (10, 20, 50, 100, 200, 500, 1000, 5000)
LIMITS = (0.504, 0.539, 0.575, 0.588, 0.605, 0.609, 0.622, 0.637)


def dip(values: ArrayLike) -> float:
    """Computes the dip of a sample (Hartigan and Hartigan 1985, section 5).

    The smallest d for which some distribution function with one mode is nowhere farther than d from
    the empirical one: at least 1 / (2 n), at most 1/4.

    >>> dip([0.0, 1.0, 2.0, 3.0])
    0.125
    >>> round(dip([0.0, 0.01, 0.02, 1.0, 1.01, 1.02]), 3)
    0.245

    Args:
        values: `(n,)` finite, at least two of them different; equal ones count once.
    """
    x = np.unique(np.asarray(values, np.float64))
    if len(x) < 2:
        raise ValueError(f"expected at least 2 different values, got {len(x)}")
    # The empirical function is a step at each value, between these two heights.
    heights = np.arange(len(x) + 1) / len(x)
    low, high, found = 0, len(x), 1 / len(x)
    while True:
        part, before, after = x[low:high], heights[low:high], heights[low + 1 : high + 1]
        # Greatest convex minorant and least concave majorant of the steps of the interval.
        left, right = _touched(part, before), _touched(part, -after)
        minorant = np.interp(part, part[left], before[left])
        majorant = np.interp(part, part[right], after[right])
        widest, first, last = _modal_interval(majorant - minorant, left, right)
        if widest <= found:
            return found / 2
        # Left of the new interval the function is to be convex, right of it concave.
        on_left = float((after - minorant)[: first + 1].max())
        on_right = float((majorant - before)[last:].max())
        found = max(found, on_left, on_right)
        if last - first + 1 == len(part):
            return found / 2
        low, high = low + first, low + last + 1


def _touched(x: Float[np.ndarray, " M"], y: Float[np.ndarray, " M"]) -> Int[np.ndarray, " H"]:
    """Returns the points where the greatest convex minorant touches the points."""
    hull: list[int] = []
    for row in range(len(x)):
        # A point on or above the line from the one before it to this one is not touched.
        while len(hull) > 1 and (y[hull[-1]] - y[hull[-2]]) * (x[row] - x[hull[-2]]) >= (
            y[row] - y[hull[-2]]
        ) * (x[hull[-1]] - x[hull[-2]]):
            hull.pop()
        hull.append(row)
    return np.array(hull)


def _modal_interval(
    gap: Float[np.ndarray, " M"], left: Int[np.ndarray, " H"], right: Int[np.ndarray, " L"]
) -> tuple[float, int, int]:
    """Returns the widest gap of both functions where one touches, and the interval around it."""
    at_left, at_right = int(left[gap[left].argmax()]), int(right[gap[right].argmax()])
    if gap[at_left] > gap[at_right]:
        return float(gap[at_left]), at_left, int(right[np.searchsorted(right, at_left)])
    first = left[np.searchsorted(left, at_right, side="right") - 1]
    return float(gap[at_right]), int(first), at_right


def has_several_modes(values: ArrayLike) -> bool:
    """Tests a sample for more than one mode, at 1 %; of fewer than ten values it says no.

    Args:
        values: `(n,)` finite; equal ones count once.
    """
    number = len(np.unique(np.asarray(values)))
    if number < SIZES[0]:
        return False
    limit = np.interp(math.log(number), np.log(SIZES), LIMITS)
    return bool(math.sqrt(number) * dip(values) > limit)
