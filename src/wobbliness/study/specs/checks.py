"""Checks of the parts of a record: numbers where numbers belong, and short lists of them."""

from typing import TYPE_CHECKING, Any

import numpy as np

from wobbliness.runtime.field_limits import shown
from wobbliness.study.specs.base import Results

if TYPE_CHECKING:
    import pandas as pd

MAX_KEYS = 50  # of results


def check_plain(results: Results, wanted: tuple[str, ...]) -> None:
    """Checks names, each with a number or None: they become columns of a table."""
    check_numbers(results, wanted)
    if len(results) > MAX_KEYS:
        raise ValueError(f"{len(results)} results")
    for name, value in results.items():
        if not (name.isidentifier() and name.isascii() and len(name) <= MAX_KEYS):
            raise ValueError(f"a result called {shown(name)}")
        if value is not None and not isinstance(value, bool | int | float):
            raise ValueError(f"{name} of another kind")


def check_numbers(results: Results, names: tuple[str, ...], *, or_none: bool = False) -> None:
    """Checks that results hold a number under each name."""
    for name in names:
        value = results.get(name)
        if not (is_number(value) or (or_none and value is None)):
            raise ValueError(f"no number for {name}")


def list_of(results: Results, name: str, max_length: int) -> list[Any]:
    """Returns a list of the results that is not too long."""
    found = results.get(name)
    if not isinstance(found, list) or len(found) > max_length:
        raise ValueError(f"no list of at most {max_length} for {name}")
    return found


def check_votes(counts: np.ndarray, draws: Any) -> None:
    """Checks integers that add up to the draws: entropies of anything else are meaningless.

    Args:
        counts: `(N, K)` votes.
        draws: of all rows, or `(N,)` of each.
    """
    if not np.issubdtype(counts.dtype, np.integer):
        raise ValueError("a table in which counts are no integers")
    if counts.min() < 0 or (counts.sum(axis=1) != draws).any():
        raise ValueError("a table in which votes do not add up to the draws")


def is_number(value: object) -> bool:
    """Checks whether a value is a number that a table can hold; True is none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 2.0**63


def checked_vote_columns(table: "pd.DataFrame", keys: tuple[str, ...]) -> list[str]:
    """Returns the names of the columns of votes: those of classes 0, 1, ..., behind the keys.

    Raises:
        ValueError: a table of other columns.
    """
    votes = list(table.columns[len(keys) :])
    is_numbered = votes == [f"votes_{index}" for index in range(len(votes))]
    if tuple(table.columns[: len(keys)]) != keys or not votes or not is_numbered:
        raise ValueError(f"a table of other columns than {', '.join(keys)} and votes")
    return votes
