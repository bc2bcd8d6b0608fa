"""Reverse-engineered triggers of the classes of a network, and their anomaly index."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Float32

from wobbliness.attacks.patch import Trigger

MAD_TO_STD = 1.4826
ANOMALY_THRESHOLD = 2.0
MIN_NORMS = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """Reverse-engineered trigger of a class: (1 - mask) * image + mask * pattern.

    Attributes:
        target_class: the class that images with the trigger are predicted as.
        mask: `(H, W)` in [0, 1], how much of each pixel is replaced.
        pattern: `(C, H, W)` in [0, 1].
        success_rate: share of all images that the network, in float32, predicts as `target_class`
            with the trigger on them: the targeted attack success rate (ASR).
        mask_l1: sum of the mask, in pixels.
        restart: which of the restarts found it, from 0.
        num_steps: steps of that restart up to this mask.
    """

    target_class: int
    mask: Float32[np.ndarray, "H W"]
    pattern: Float32[np.ndarray, "C H W"]
    success_rate: float
    mask_l1: float
    restart: int
    num_steps: int

    def trigger(self) -> Trigger:
        """Returns the candidate as a trigger that covers the whole image."""
        return Trigger(name=f"candidate {self.target_class}", pattern=self.pattern, mask=self.mask)


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """Reverse-engineered triggers of each class.

    None where no restart reached the success threshold or none was asked for.

    Attributes:
        first: K, the first success: the earliest mask at the success threshold.
        smallest: K, the minimum norm: the mask of the smallest L1 norm at the success threshold,
            over all restarts.
        classes: the classes that were asked for.
    """

    first: tuple[Candidate | None, ...]
    smallest: tuple[Candidate | None, ...]
    classes: tuple[int, ...]

    @property
    def failures(self) -> tuple[int, ...]:
        """Returns the classes that were asked for and not reached."""
        return tuple(target for target in self.classes if self.smallest[target] is None)

    @cached_property
    def anomaly_index(self) -> Float[np.ndarray, " K"]:
        """Computes how far each smallest mask's norm is from the median, `(K,)`.

        NaN where there is none (see `anomaly_index`).
        """
        return anomaly_index(self._norms)

    @property
    def flagged(self) -> tuple[int, ...]:
        """Returns the likely target classes of a backdoor.

        Those with an anomaly index above 2 whose mask is smaller than the median.
        """
        norms = self._norms
        # Only small masks are suspicious: an unusually large one is an outlier, too.
        is_small = (
            norms < np.nanmedian(norms)
            if np.isfinite(norms).any()
            else np.zeros(len(norms), dtype=bool)
        )
        return tuple(np.flatnonzero(is_small & (self.anomaly_index > ANOMALY_THRESHOLD)).tolist())

    @property
    def _norms(self) -> Float[np.ndarray, " K"]:
        return np.array(
            [np.nan if candidate is None else candidate.mask_l1 for candidate in self.smallest]
        )


def anomaly_index(norms: Float[np.ndarray, " K"]) -> Float[np.ndarray, " K"]:
    """Computes distances from the median in robust standard deviations, `(K,)`.

    |norm - median| / (1.4826 * median |norm - median|) (section IV of the paper); there a class
    whose norm is below the median and whose index is above 2 is flagged. With a median absolute
    deviation of 0 the index is 0 at the median, else infinite.

    >>> anomaly_index(np.array([10.0, 11.0, 12.0, 13.0, 2.0, np.nan])).round(2).tolist()
    [0.67, 0.0, 0.67, 1.35, 6.07, nan]

    Args:
        norms: `(K,)` in pixels, NaN where there is none; fewer than three others give NaN
            throughout.
    """
    # The median of fewer norms says nothing of outliers.
    if np.isfinite(norms).sum() < MIN_NORMS:
        return np.full(len(norms), np.nan)
    distances = np.abs(norms - np.nanmedian(norms))
    # The median absolute deviation of a normal sample, scaled to its standard deviation.
    std = MAD_TO_STD * np.nanmedian(distances)
    if std == 0:
        return np.where(distances > 0, np.inf, distances)
    return np.asarray(distances / std)
