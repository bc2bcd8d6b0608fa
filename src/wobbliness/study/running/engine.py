"""Protocol of an engine, which runs cells in this process, in others, or on other machines."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from wobbliness.study.specs import Cell

CellProgress = Callable[[str, int, int], None]
"""Called with (cell name, steps done, steps in all)."""


class Result(Enum):
    """Result of an attempt at a cell."""

    DONE = "done"  # by this attempt, or by another runner before it
    BUSY = "busy"  # another runner is running it
    FAILED = "failed"
    CANNOT_WRITE = "cannot write"  # no fault of the cell's: no other cell would fare better


@dataclass(frozen=True, kw_only=True)
class Job:
    """Cell to be done.

    Attributes:
        cell: which one.
        needs_weights: whether a record without its weights will not do.
        known_failure: the attempt that failed before this run and is to be repeated; a later one,
            of another runner, is not.
    """

    cell: Cell
    needs_weights: bool = False
    known_failure: str | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Outcome of a job."""

    cell: str
    result: Result
    message: str = ""


class Engine(Protocol):
    """Engine that runs jobs, each under the lock of its cell.

    See `wobbliness.study.running.run_cell.attempt`.
    """

    def has_room(self) -> bool:
        """Checks whether a job can be taken now."""
        ...

    def submit(self, job: Job) -> None:
        """Takes a job; only where there is room."""
        ...

    def wait(self, seconds: float) -> list[Outcome]:
        """Returns what has ended since the last call.

        Waits for the first outcome for at most about so long.
        """
        ...

    def close(self) -> None:
        """Stops all running jobs, without waiting for them to finish."""
        ...
