"""Ranks of inputs among clean inputs of the same predicted class."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from wobbliness.statistics.conformal import ROUNDING


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassRanks:
    """Places of inputs among clean inputs of the same predicted class.

    Attributes:
        share_above: `(N,)` share of those clean inputs whose value is larger; NaN where there are
            none.
        num_clean: `(N,)` number of them.
    """

    share_above: Float[np.ndarray, " N"]
    num_clean: Int[np.ndarray, " N"]

    @property
    def percentile(self) -> Float[np.ndarray, " N"]:
        """Returns the share in percent: 100 where every one of those clean inputs is larger."""
        return 100 * self.share_above


def class_ranks(
    values: Float[np.ndarray, " N"],
    label: Int[np.ndarray, " N"],
    clean: Float[np.ndarray, " C"],
    clean_label: Int[np.ndarray, " C"],
) -> ClassRanks:
    """Ranks values among those of clean inputs of the same predicted class.

    Of clean inputs that served for nothing else, and of a clean input, the share is uniform up to
    steps of 1 / (clean inputs of the class).

    Args:
        values: low where suspicious.
        label: predicted classes.
        clean: values of clean inputs.
        clean_label: their predicted classes.
    """
    share, number = np.full(len(values), np.nan), np.zeros(len(values), np.int64)
    for own in np.unique(label):
        rows, same = label == own, np.sort(clean[clean_label == own])
        number[rows] = len(same)
        if len(same):
            # Values closer than rounding are one value.
            at_most = np.searchsorted(same, values[rows] + ROUNDING, side="right")
            share[rows] = 1 - at_most / len(same)
    return ClassRanks(share_above=share, num_clean=number)
