"""Choice of the noise level sigma, or of another perturbation, at which W is compared."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from wobbliness.statistics.row_tests import levene_rows, mann_whitney_rows

NUM_BATCHES = 100  # drawn to estimate a power

Level: TypeAlias = float | str
"""Standard deviation of Gaussian noise, or the name of another perturbation."""

AnyLevel = TypeVar("AnyLevel", bound=Level)

BatchTest = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Gives the p-values `(B,)` of pairs of batches, from W of clean `(B, N)` and suspect `(B, M)`."""


@dataclass(frozen=True, kw_only=True)
class SigmaChoice(Generic[AnyLevel]):
    """Sigma chosen on clean data alone.

    Attributes:
        sigma: standard deviation of the noise, pixel units of [0, 1]; or the name of another
            perturbation.
        power: probability that the test would tell a clean batch from an ideally smooth one at this
            sigma.
        reached: whether that power reaches the wanted one; otherwise this is the sigma of the
            highest power.
    """

    sigma: AnyLevel
    power: float
    reached: bool


def shown_level(level: Level) -> str:
    """Returns a sigma or a name for tables.

    >>> shown_level(0.1), shown_level("scale-3-5")
    ('0.1', 'scale-3-5')
    """
    return level if isinstance(level, str) else f"{level:g}"


def what_differs(levels: Iterable[Level]) -> str:
    """Returns the word for all of some levels: `sigma`, or `perturbation`.

    >>> what_differs([0.1, 0.2]), what_differs([0.1, "scale-3-5"])
    ('sigma', 'perturbation')
    """
    return "perturbation" if any(isinstance(level, str) for level in levels) else "sigma"


def in_order(levels: Iterable[AnyLevel]) -> list[AnyLevel]:
    """Returns sigmas ascending, then the names of other perturbations as they were given.

    >>> in_order(["scale-3-5", 0.2, 0.1, "blur-1"])
    [0.1, 0.2, 'scale-3-5', 'blur-1']
    """
    # Sorting is stable: what has no size of its own keeps its order.
    return sorted(levels, key=lambda level: (1, 0.0) if isinstance(level, str) else (0, level))


def directional_pvalues(clean_w: np.ndarray, suspect_w: np.ndarray) -> np.ndarray:
    """Computes p-values of the directional test (Mann-Whitney, is W lower?), one a row."""
    return mann_whitney_rows(clean_w, suspect_w).pvalue


def levene_pvalues(clean_w: np.ndarray, suspect_w: np.ndarray) -> np.ndarray:
    """Computes p-values of the paper's Levene test, outliers removed, one a row."""
    return levene_rows(clean_w, suspect_w).pvalue


def levene_pvalues_all_points(clean_w: np.ndarray, suspect_w: np.ndarray) -> np.ndarray:
    """Computes p-values of Levene's test on all points, one a row."""
    return levene_rows(clean_w, suspect_w).pvalue_all_points


def choose_sigma(
    clean_w: Mapping[AnyLevel, ArrayLike],
    *,
    batch_size: int,
    test: BatchTest = directional_pvalues,
    power: float = 0.99,
    pvalue: float = 1e-6,
    seed: int = 0,
) -> SigmaChoice[AnyLevel]:
    """Finds the smallest sigma at which a test would tell a fully smooth batch from a clean one.

    Fully smooth means W = 0 at every point. The power is the share of clean batches, drawn with
    replacement from the clean points given here, that the test tells from such a batch. The paper
    gives no rule; this one sees no trigger, and prefers small sigmas, where backdoor smoothing is
    clearest (section 3.2.2). Other perturbations follow the sigmas, in the order they are given in.

    Args:
        clean_w: W of clean points at each sigma, or by the name of another perturbation, each
            `(N,)` nats.
        batch_size: number of points of each batch that will be compared.
        test: gives the p-values `(B,)` of pairs of batches, from their W `(B, N)` and `(B, M)`.
        power: wanted probability of detection, in (0, 1).
        pvalue: threshold of the test.
        seed: of the drawn batches.

    Returns:
        The smallest sigma that reaches the power; where none does, the one of the highest power.

    Raises:
        ValueError: no sigma is given, or a batch has fewer than 2 points.
    """
    if not clean_w:
        raise ValueError("expected clean W at one sigma at least, got none")
    if batch_size < 2:
        raise ValueError(f"expected batches of at least 2 points, got {batch_size}")
    smooth, choices = np.zeros((NUM_BATCHES, batch_size)), []
    for sigma in in_order(clean_w):
        # The same resamples at every sigma: powers differ by W alone.
        rng = np.random.default_rng(np.random.SeedSequence(seed))
        batches = rng.choice(
            np.asarray(clean_w[sigma], dtype=np.float64), size=(NUM_BATCHES, batch_size)
        )
        reached = float(np.mean(test(batches, smooth) <= pvalue))
        choices.append(SigmaChoice(sigma=sigma, power=reached, reached=reached >= power))
        if choices[-1].reached:
            return choices[-1]
    return max(choices, key=lambda choice: choice.power)
