"""Reasons of a verdict in plain words: which perturbation spoke, and what its votes say."""

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import special

from wobbliness.perturbations.levels import shown_share
from wobbliness.sampling.votes import Votes
from wobbliness.statistics.expected_votes import shares_of

# Share of the votes of clean inputs below which they are said to go somewhere hardly ever.
HARDLY_EVER = 0.01
# Of a perturbation's readings, in standard deviations: from here on it speaks beside the first.
UNUSUAL, MOST_SPOKEN = 2.0, 3


def votes_reason(
    votes: Votes, row: int, label: int, expected: Float[np.ndarray, " K"], effect: str
) -> str:
    """Returns what is unusual about the votes of an input under one perturbation.

    Named is the class that adds most to the deviance p_k ln(p_k / q_k) of the shares p of the votes
    from the expected ones q.

    Args:
        votes: under the perturbation.
        row: of the input.
        label: its clean prediction.
        expected: q, the shares of the votes of clean inputs of the same prediction.
        effect: of the perturbation on an input, as a clause.
    """
    counts = _padded(votes.counts[row], len(expected))
    spoke = _spoken_class(counts, expected)
    found = f"class {spoke} in {counts[spoke]} of {counts.sum()} copies"
    usual = shown_share(float(expected[spoke]))
    if spoke == label:
        return (
            f"stays {found} although {effect}; of clean inputs of class {label}, {usual} of such "
            "copies stay"
        )
    if expected[spoke] < HARDLY_EVER:
        return (
            f"strays to {found} when {effect}; clean inputs of class {label} hardly ever go there "
            f"({usual} of such copies)"
        )
    return (
        f"strays to {found} when {effect}; of clean inputs of class {label}, {usual} of such "
        "copies go there"
    )


def telling_draws(
    labels: Int[np.ndarray, " D"], votes: Votes, row: int, expected: Float[np.ndarray, " K"]
) -> Bool[np.ndarray, " D"]:
    """Returns which copies were predicted as the class that `votes_reason` names.

    Args:
        labels: the predicted class of each copy of the input.
        votes: as for `votes_reason`.
        row: likewise.
        expected: likewise.
    """
    return np.asarray(labels == _spoken_class(_padded(votes.counts[row], len(expected)), expected))


def smoothness_reason(
    w: float, label: int, effect: str, *, percentile: float, num_clean: int
) -> str:
    """Returns how smooth an input is, compared with clean inputs of the same prediction.

    Args:
        w: W under the perturbation that spoke most, nats.
        label: clean prediction of the input.
        effect: of that perturbation on an input, as a clause.
        percentile: of the input under every perturbation, in percent.
        num_clean: clean inputs of the class.
    """
    found = f"W is {w:.3f} nats when {effect}"
    if not num_clean:
        return f"{found}; no clean input is predicted as class {label}"
    return (
        f"{found}; under every perturbation it is lower than that of "
        f"{shown_share(percentile / 100)} of the {num_clean} clean inputs of class {label}"
    )


def unusual_readings(
    placed: Float[np.ndarray, "N F"], num_perturbations: int
) -> Float[np.ndarray, "N S"]:
    """Returns how far the readings of each perturbation are from those of clean inputs.

    The root of their mean square, in standard deviations.

    Args:
        placed: `(N, R S)` readings in standard deviations, those of one kind beside each other.
        num_perturbations: S.
    """
    readings = placed.reshape(len(placed), -1, num_perturbations)
    return np.asarray(np.sqrt((readings**2).mean(axis=1)))


def spoken(unusual: Float[np.ndarray, " S"]) -> tuple[int, ...]:
    """Returns the perturbations that spoke, the most unusual first: one to three.

    Args:
        unusual: a row of `unusual_readings`.
    """
    order = np.argsort(-unusual, kind="stable")[:MOST_SPOKEN]
    return tuple(int(row) for row in order if row == order[0] or unusual[row] >= UNUSUAL)


def _spoken_class(counts: Int[np.ndarray, " K"], expected: Float[np.ndarray, " K"]) -> int:
    return int(special.rel_entr(shares_of(counts), expected).argmax())


def _padded(counts: Int[np.ndarray, " K"], num_classes: int) -> Int[np.ndarray, " L"]:
    return np.pad(counts, (0, num_classes - len(counts)))
