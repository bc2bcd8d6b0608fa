"""Certificates of robustness from votes: how far an input may move before the top class can lose.

All start from a lower bound of the top class's probability under the noise (`top_probability`), and
take every other vote for the runner-up's.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy import special

from wobbliness.statistics.entropy import checked_confidence

MAX_CHANGES = 1000


def top_probability(
    counts: Int[np.ndarray, "N K"],
    confidence: float = 0.999,
    *,
    label: Int[np.ndarray, " N"] | None = None,
) -> Float[np.ndarray, " N"]:
    """Computes a one-sided Clopper-Pearson lower bound of the top class's probability.

    Cohen et al. (2019) choose the class from draws of its own; pass such a choice as `label` for
    their procedure. Without it the class is chosen from the same votes, and the error is halved to
    pay for the choice: at most two classes can compete for a majority.

    Args:
        counts: `(N, K)` votes.
        confidence: in (0, 1), of the bound of each single image.
        label: `(N,)` class of each image, chosen without these votes.

    Returns:
        `(N,)` probabilities.
    """
    error = 1 - checked_confidence(confidence)
    # The class chosen from the same votes costs half the error.
    chosen, error = (counts.argmax(axis=1), error / 2) if label is None else (label, error)
    votes = np.take_along_axis(counts, np.asarray(chosen)[:, None], axis=1)[:, 0]
    others = counts.sum(axis=1) - votes
    # Clopper-Pearson: the `error` quantile of Beta(votes, others + 1).
    bound = special.betaincinv(np.maximum(votes, 1), others + 1, error)
    return np.asarray(np.where(votes > 0, bound, 0.0))


def gaussian_l2_radius(lower: Float[np.ndarray, " N"], sigma: float) -> Float[np.ndarray, " N"]:
    """Computes the l2 radius under Gaussian noise: sigma Phi^-1(p) (Cohen et al. 2019, Theorem 1).

    Args:
        lower: `(N,)` bounds of the top class's probability.
        sigma: of the noise, pixel units.

    Returns:
        `(N,)` distances; 0 where the bound is at most 1/2.
    """
    return np.asarray(sigma * special.ndtri(np.maximum(lower, 0.5)))


def uniform_l1_radius(lower: Float[np.ndarray, " N"], std: float) -> Float[np.ndarray, " N"]:
    """Computes the l1 radius under uniform noise on [-r, r]: 2 r (p - 1/2).

    Lee et al. (2019), Yang et al. (2020): a shift by d moves at most |d|_1 / (2 r) of the mass.

    Args:
        lower: as for `gaussian_l2_radius`.
        std: of the noise, r / sqrt(3).
    """
    return np.asarray(2 * np.sqrt(3) * std * np.maximum(lower - 0.5, 0))


def laplace_l1_radius(lower: Float[np.ndarray, " N"], std: float) -> Float[np.ndarray, " N"]:
    """Computes the l1 radius under Laplace noise of scale b: -b ln(2 (1 - p)).

    Teng, Lee and Yuan (2020).

    Args:
        lower: as for `gaussian_l2_radius`.
        std: of the noise, b sqrt(2).
    """
    return np.asarray(-std / np.sqrt(2) * np.log(2 * (1 - np.maximum(lower, 0.5))))


def flow_wasserstein_radius(lower: Float[np.ndarray, " N"], std: float) -> Float[np.ndarray, " N"]:
    """Computes the Wasserstein radius under `Flow`: that of Laplace noise on the flows.

    Two pictures at the distance r differ by flows between neighbours whose absolute values add up
    to r (Levine and Feizi 2020; the ground distance is |rows| + |columns|). Their bound is half as
    large, as it does not use that of Teng et al.

    Args:
        lower: as for `gaussian_l2_radius`.
        std: of each flow, pixel units.

    Returns:
        `(N,)` amounts of brightness times pixels.
    """
    return laplace_l1_radius(lower, std)


def kept_features_l0_radius(
    lower: Float[np.ndarray, " N"], keep: float, levels: int
) -> Int[np.ndarray, " N"]:
    """Computes how many features may change under `KeepFeature` (Lee et al. 2019, section 3.2).

    Exact, by the lemma of Neyman and Pearson on the features that differ: the others do not help to
    tell two inputs apart. With two levels it holds for bits, as the edges of a graph or the labels
    of a training set (`label_flip_radius`).

    Args:
        lower: as for `gaussian_l2_radius`.
        keep: probability that a feature is kept.
        levels: values that a feature may have.

    Returns:
        `(N,)` numbers of features, at most 1,000; 0 also where the bound is at most 1/2.
    """
    least = _least_probabilities(float(np.max(lower, initial=0.0)), keep, levels)
    # Strictly above: at the least probability itself the other class may tie.
    return np.searchsorted(least, lower, side="left")


def least_probability(changes: int, keep: float, levels: int) -> float:
    """Computes the probability above which a class survives a number of changed features.

    The smallest p such that every set of outcomes of probability p at one input has at least 1/2 at
    an input that differs in `changes` features.
    """
    here, there = _outcomes(changes, keep, levels)
    # The worst set of probability p takes first what is likely here and unlikely there.
    order = np.argsort(here / np.maximum(there, np.finfo(float).tiny), kind="stable")[::-1]
    here, there = here[order], there[order]
    before = np.concatenate([[0.0], np.cumsum(there)])
    # Outcomes of lower likelihood ratio are left out once the other input has 1/2.
    last = int(np.searchsorted(before, 0.5, side="left")) - 1
    share = (0.5 - before[last]) / there[last]
    return float(here[:last].sum() + share * here[last])


def label_flip_radius(lower: Float[np.ndarray, " N"], share: float) -> Int[np.ndarray, " N"]:
    """Computes how many labels of a training set of two classes an adversary may flip.

    Votes are those of networks trained on labels of which each was flipped with probability `share`
    (Rosenfeld et al. 2020): bits that are kept with probability 1 - share.

    Args:
        lower: as for `gaussian_l2_radius`.
        share: probability of a flip, below 1/2.
    """
    return kept_features_l0_radius(lower, 1 - share, 2)


def _least_probabilities(highest: float, keep: float, levels: int) -> Float[np.ndarray, " R"]:
    """Returns `least_probability` of 1, 2, ... changes, as far as the highest bound reaches."""
    least: list[float] = []
    # As many as the highest bound can certify, no more.
    while len(least) < MAX_CHANGES:
        least.append(least_probability(len(least) + 1, keep, levels))
        if least[-1] >= highest:
            break
    return np.maximum.accumulate(np.array(least))


def _outcomes(
    changes: int, keep: float, levels: int
) -> tuple[Float[np.ndarray, " D"], Float[np.ndarray, " D"]]:
    """Returns the probabilities of what tells two inputs apart, at the one and at the other.

    It is the number of features that are as here less those that are as there, from -r to r. The
    ratio of the two probabilities depends on it alone: (keep / other)^D.
    """
    other = (1 - keep) / (levels - 1)
    each = np.array([other, max(0.0, 1 - keep - other), keep])  # as there, as neither, as here
    here = np.ones(1)
    # Features are independent: the distribution of a sum is a convolution.
    for _ in range(changes):
        here = np.convolve(here, each)
    return here, here[::-1]
