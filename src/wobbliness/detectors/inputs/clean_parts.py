"""Division of clean inputs into three parts: to mix with, to compare with, to calibrate on."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from wobbliness.perturbations.mixing.overlays import MIN_OVERLAYS
from wobbliness.statistics.conformal import num_flagged

# Of the clean inputs, those to mix with: at most so many, and at most this share.
MOST_OVERLAYS, OVERLAY_SHARE = 100, 1 / 5
MIN_REFERENCE = 2


class UnsuitedInputs(ValueError):
    """Clean inputs that are too few for three parts, or too alike to be compared by class.

    Attributes:
        num_inputs: that differ from each other.
    """

    def __init__(self, message: str, num_inputs: int) -> None:
        super().__init__(message)
        self.num_inputs = num_inputs


@dataclass(frozen=True, kw_only=True, eq=False)
class CleanParts:
    """Rows of clean inputs; no input is in two parts.

    Attributes:
        overlays: to mix with.
        reference: that others are compared with.
        calibration: that serve for nothing else.
    """

    overlays: Int[np.ndarray, " M"]
    reference: Int[np.ndarray, " R"]
    calibration: Int[np.ndarray, " C"]

    @classmethod
    def of(cls, num_inputs: int, *, mixes: bool, seed: int) -> "CleanParts":
        """Divides inputs at random.

        Args:
            num_inputs: clean ones.
            mixes: whether some are to be mixed with.
            seed: of the order.
        """
        order = np.random.default_rng(np.random.SeedSequence(seed)).permutation(num_inputs)
        first, second = _ends(num_inputs, mixes)
        return cls(
            overlays=order[:first], reference=order[first:second], calibration=order[second:]
        )

    @property
    def measured(self) -> Int[np.ndarray, " N"]:
        """The reference, then those that calibrate."""
        return np.concatenate([self.reference, self.calibration])


def check_enough(
    num_inputs: int, false_positive_rate: float, *, mixes: bool, what: str = "clean inputs"
) -> None:
    """Checks that there are enough clean inputs for the parts.

    Args:
        num_inputs: clean ones.
        false_positive_rate: stated; some p-value must be as small.
        mixes: as for `CleanParts.of`.
        what: they are, for messages.

    Raises:
        ValueError: the rate is not within (0, 1).
        UnsuitedInputs: there are too few.
    """
    if not 0 < false_positive_rate < 1:
        raise ValueError(
            f"expected a false-positive rate between 0 and 1, got {false_positive_rate}"
        )
    if _are_enough(num_inputs, false_positive_rate, mixes):
        return
    # At most a fifth more than two equal parts; then down to the least.
    least = math.ceil(2.5 / false_positive_rate) + 10
    while _are_enough(least - 1, false_positive_rate, mixes):
        least -= 1
    raise UnsuitedInputs(
        f"expected at least {least} {what} for a false-positive rate of {false_positive_rate}, "
        f"got {num_inputs} sample{'s' if num_inputs > 1 else ''}",
        num_inputs,
    )


def _are_enough(num_inputs: int, false_positive_rate: float, mixes: bool) -> bool:
    first, second = _ends(num_inputs, mixes)
    return (
        (first >= MIN_OVERLAYS or not mixes)
        and second - first >= MIN_REFERENCE
        and num_flagged(num_inputs - second, false_positive_rate) >= 1
    )


def _ends(num_inputs: int, mixes: bool) -> tuple[int, int]:
    """Returns where the overlays end, and where the reference ends."""
    first = min(MOST_OVERLAYS, int(OVERLAY_SHARE * num_inputs)) if mixes else 0
    return first, first + (num_inputs - first) // 2
