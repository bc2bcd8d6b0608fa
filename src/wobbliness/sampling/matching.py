"""Perturbations of several families made comparable: levels that change as many clean labels."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from wobbliness.perturbations.base import Perturbation
from wobbliness.runtime.progress import ignore_progress
from wobbliness.sampling.measure import measure
from wobbliness.sampling.readouts import agreement

DRAWS = 50
DIGITS = 3  # of the level
START, STEPS = 2.0**-10, 12


class ShiftNotReached(ValueError):
    """No level up to the highest one changes enough labels.

    Attributes:
        most: the highest level.
        changed: share of the labels that change there.
    """

    def __init__(self, most: float, shift: float, changed: float) -> None:
        super().__init__(
            f"expected a level up to {most:g} that changes {shift:.0%} of the clean labels, got "
            f"{changed:.1%} there"
        )
        self.most, self.changed = most, changed


@dataclass(frozen=True)
class MatchedLevel:
    """Level of a family at which enough labels of clean images change.

    Attributes:
        level: rounded up to three digits.
        changed: share of the labels that change there.
    """

    level: float
    changed: float


def matched(
    family: Callable[[float], Perturbation],
    classifier: Any,
    clean: Any,
    *,
    shift: float = 0.2,
    most: float = 1.0,
    draws: int = DRAWS,
    seed: int = 0,
    **settings: Any,
) -> Perturbation:
    """Finds the level of a family at which a share of the labels of clean images changes.

    Levels of different families mean different things. At the same share of changed labels they can
    be compared (the protocol of PSBD, Li et al. 2025). The share is that of all copies of all
    images. It is bracketed by doubling the level from 2^-10 and then halved, on a logarithmic
    scale.

    >>> from wobbliness.perturbations import Gaussian
    >>> images = np.full((20, 1), 0.45)
    >>> above = matched(Gaussian, lambda x: (x[:, 0] > 0.5).astype(int), images, draws=4000)
    >>> round(above.sigma, 2)  # 0.05 / Phi^-1(0.8) = 0.059
    0.06

    Args:
        family: makes a perturbation of a level, such as `Gaussian` or
            `lambda share: BoxMix(overlays, share, share)`; the higher the level, the more changes.
        classifier: as for `measure`.
        clean: images known to be clean.
        shift: share of the labels that change, in (0, 1).
        most: highest level to try.
        draws: copies of each image at each level tried.
        seed: of the draws.
        **settings: further arguments of `measure`.

    Returns:
        The perturbation, its level rounded up to three digits.

    Raises:
        ValueError: a shift out of range, or one that no level up to `most` reaches
            (`ShiftNotReached`); what `measure` and the family raise.
    """
    options: Any = {"shift": shift, "most": most, "draws": draws, "seed": seed, **settings}
    return family(matched_level(family, classifier, clean, **options).level)


def matched_level(
    family: Callable[[float], Perturbation],
    classifier: Any,
    clean: Any,
    *,
    shift: float = 0.2,
    most: float = 1.0,
    draws: int = DRAWS,
    seed: int = 0,
    **settings: Any,
) -> MatchedLevel:
    """Finds the level of `matched`, of which it takes all arguments.

    Raises:
        ValueError: as for `matched`.
    """
    if not 0 < shift < 1:
        raise ValueError(f"expected a shift in (0, 1), got {shift}")

    def changed(level: float) -> float:
        return changed_share(family(level), classifier, clean, draws=draws, seed=seed, **settings)

    # Enough labels change at `high`, too few at `low`; both are kept so.
    low, high = _bracket(changed, shift, most)
    for _ in range(STEPS):
        middle = float(np.sqrt(low * high))
        low, high = (low, middle) if changed(middle) >= shift else (middle, high)
    level = min(_rounded_up(high), most)
    return MatchedLevel(level, changed(level))


def changed_share(
    perturbation: Perturbation,
    classifier: Any,
    clean: Any,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    **settings: Any,
) -> float:
    """Computes the share of the labels of clean images that change, over all copies of all.

    Args:
        perturbation: of one level.
        classifier: as for `measure`.
        clean: images known to be clean.
        draws: copies of each image.
        seed: of the draws.
        **settings: further arguments of `measure`.
    """
    kept = {"keep_clean": True, "progress": ignore_progress, **settings}
    votes = measure(classifier, clean, perturbation, draws, seed, **kept)
    return 1 - float(agreement(votes).mean())


def _bracket(changed: Callable[[float], float], shift: float, most: float) -> tuple[float, float]:
    """Returns a level of too few changed labels, and one of enough."""
    low, high = START / 2, START
    while changed(high) < shift:
        if high >= most:
            raise ShiftNotReached(most, shift, changed(most))
        low, high = high, min(2 * high, most)
    return low, high


def _rounded_up(level: float) -> float:
    """Returns a level of few digits, not below: where steps are coarse, less changes too little."""
    step = 10.0 ** (math.floor(math.log10(level)) + 1 - DIGITS)
    # Through a text: a multiple of the step may differ from the number of these digits.
    return float(f"{math.ceil(level / step) * step:.{DIGITS}g}")
