"""Check of a whole measurement by a second one, in another order and block size.

Rounding at another block size may change a label, and always changes the same one. Chance, or a
count of calls, changes others each time. So images whose votes differ are measured again, as the
first time and as the second.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from jaxtyping import Int

from wobbliness.sampling.plan import Plan

# share of labels that rounding may change at another block size; one label always may
MAX_CHANGED_SHARE = 1e-4

CountVotes: TypeAlias = Callable[[Plan], np.ndarray]


def require_repeated(
    plan: Plan, block_size: int, counts: Int[np.ndarray, "N S K"], count_votes: CountVotes
) -> None:
    """Measures a second time and compares.

    Args:
        plan: of the first time.
        block_size: copies that were classified at a time then.
        counts: the votes of the first time.
        count_votes: measures a plan.

    Raises:
        ValueError: other votes than rounding explains.
    """
    # The second time: reversed order, half the block size.
    order = np.arange(len(plan.images))[::-1]
    other_size = max(1, block_size // 2)
    again = _in_order(count_votes(_part(plan, order, other_size)), order)
    differs = _rows_that_differ(counts, again)
    if not differs.size:
        return
    # a device's blocks hold several images: their rounding depends on all of them
    rows = order[::-1] if plan.is_on_device else differs
    rounds = ((block_size, counts), (other_size, again))
    # Rounding changes the same labels each time; chance changes others.
    is_repeated = all([_is_alike(count_votes, plan, rows, *earlier) for earlier in rounds])
    max_changed = max(1.0, MAX_CHANGED_SHARE * int(counts.sum()))
    if is_repeated and _num_changed(counts, again) <= max_changed:
        return
    sizes = f"; it depends on the size of a block ({block_size} and {other_size})"
    raise ValueError(
        "expected a classifier that gives the same answers to the same images, got other votes "
        f"the second time for {len(differs)} of {len(counts)} images{sizes if is_repeated else ''}"
    )


def _is_alike(
    count_votes: CountVotes, plan: Plan, rows: np.ndarray, block_size: int, counts: np.ndarray
) -> bool:
    """Measures some images once more; checks whether their votes are those of before."""
    again = count_votes(_part(plan, rows, block_size))
    return not _rows_that_differ(again, counts[rows]).size


def _part(plan: Plan, rows: np.ndarray, block_size: int) -> Plan:
    return replace(plan, images=plan.images[rows], keys=plan.keys[rows], block_size=block_size)


def _in_order(counts: np.ndarray, order: np.ndarray) -> np.ndarray:
    # Row i of the counts is of image order[i].
    sorted_counts = np.empty_like(counts)
    sorted_counts[order] = counts
    return sorted_counts


def _rows_that_differ(
    counts: Int[np.ndarray, "N S K"], again: Int[np.ndarray, "N S L"]
) -> Int[np.ndarray, " D"]:
    return np.flatnonzero((np.subtract(*_as_wide(counts, again)) != 0).any(axis=(1, 2)))


def _num_changed(counts: Int[np.ndarray, "N S K"], again: Int[np.ndarray, "N S L"]) -> int:
    """Computes the number of labels that must have changed at least."""
    # A changed label moves one vote, so it counts in two columns.
    return int(np.abs(np.subtract(*_as_wide(counts, again))).sum()) // 2


def _as_wide(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pads both with a column for each class that one of them has."""
    # A classifier of unknown K may predict a further class in one of the two rounds.
    wide = max(one.shape[-1], other.shape[-1])
    first, second = (
        np.pad(counts, [(0, 0), (0, 0), (0, wide - counts.shape[-1])]) for counts in (one, other)
    )
    return first, second
