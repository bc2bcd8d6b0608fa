"""Reasons of a verdict: which perturbation spoke, and what the votes under it say."""

import numpy as np
from jaxtyping import Float, Int
from scipy import special

from wobbliness.sampling.votes import Votes
from wobbliness.statistics.expected_votes import shares_of


def reason_of(votes: Votes, row: int, label: int, expected: Float[np.ndarray, " K"]) -> str:
    """Returns what is unusual about the votes of an input under one perturbation.

    Named is the class that adds most to the deviance p_k ln(p_k / q_k) of the shares p of the votes
    from the expected ones q.

    Args:
        votes: under the perturbation.
        row: of the input.
        label: its clean prediction.
        expected: q, the shares of the votes of clean inputs of the same prediction.
    """
    counts = _padded(votes.counts[row], len(expected))
    shares = shares_of(counts)
    spoke = int(special.rel_entr(shares, expected).argmax())
    found = f"{counts[spoke]} of {counts.sum()} copies under {votes.perturbation}"
    usual = f"{_share(expected[spoke])} of the votes of clean inputs of class {label}"
    if spoke == label:
        return f"stays class {label} in {found}, where {usual} stay"
    return f"strays to class {spoke} in {found}, where {usual} go"


def most_unusual(placed: Float[np.ndarray, "N F"], num_perturbations: int) -> Int[np.ndarray, " N"]:
    """Returns the perturbation whose readings are farthest from those of clean inputs.

    Args:
        placed: `(N, R S)` readings in standard deviations, those of one kind beside each other.
        num_perturbations: S.
    """
    readings = placed.reshape(len(placed), -1, num_perturbations)
    return np.asarray((readings**2).sum(axis=1).argmax(axis=1))


def _share(value: float) -> str:
    return f"{value:.0%}" if value >= 0.1 else f"{value:.1%}"


def _padded(counts: Int[np.ndarray, " K"], num_classes: int) -> Int[np.ndarray, " L"]:
    return np.pad(counts, (0, num_classes - len(counts)))
