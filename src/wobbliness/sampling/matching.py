"""Perturbations of several families made comparable: levels that change as many clean labels."""

from collections.abc import Callable
from typing import Any

import numpy as np

from wobbliness.perturbations.base import Perturbation
from wobbliness.runtime.progress import ignore_progress
from wobbliness.sampling.measure import measure
from wobbliness.sampling.readouts import agreement

DRAWS = 50
DIGITS = 3  # of the level
START, STEPS = 2.0**-10, 12


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
        The perturbation, its level rounded to three digits.

    Raises:
        ValueError: a shift out of range, or one that no level up to `most` reaches; what `measure`
            and the family raise.
    """
    if not 0 < shift < 1:
        raise ValueError(f"expected a shift in (0, 1), got {shift}")

    kept = {"keep_clean": True, "progress": ignore_progress, **settings}

    def changed(level: float) -> float:
        votes = measure(classifier, clean, family(level), draws, seed, **kept)
        return 1 - float(agreement(votes).mean())

    # Enough labels change at `high`, too few at `low`; both are kept so.
    low, high = _bracket(changed, shift, most)
    for _ in range(STEPS):
        middle = float(np.sqrt(low * high))
        low, high = (low, middle) if changed(middle) >= shift else (middle, high)
    return family(_rounded(high))


def _bracket(changed: Callable[[float], float], shift: float, most: float) -> tuple[float, float]:
    """Returns a level of too few changed labels, and one of enough."""
    low, high = START / 2, START
    while changed(high) < shift:
        if high >= most:
            raise ValueError(
                f"expected a level up to {most:g} that changes {shift:.0%} of the clean labels, "
                f"got {changed(most):.1%} there"
            )
        low, high = high, min(2 * high, most)
    return low, high


def _rounded(level: float) -> float:
    return float(f"{level:.{DIGITS}g}")
