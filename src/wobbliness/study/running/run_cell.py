"""Attempt at one cell: under its lock, with damaged files set aside and a failure kept."""

from collections.abc import Callable
from pathlib import Path

from wobbliness.runtime.exit import trim_malloc_heap
from wobbliness.runtime.files import CannotWrite
from wobbliness.runtime.progress import Notice, Progress
from wobbliness.study.recipes import Recipe
from wobbliness.study.records.failures import (
    failure,
    failure_of,
    read_failure,
    remove_failure,
    write_failure,
)
from wobbliness.study.records.integrity import (
    check_integrity,
    recorded_weights,
    remove_unfinished_files,
    set_aside_damaged,
)
from wobbliness.study.records.locks import lock
from wobbliness.study.running.engine import Job, Outcome, Result
from wobbliness.study.specs import Cell

RunCell = Callable[[Path, Cell, Recipe, Progress, Notice], None]
"""Runs a cell and writes its record, as `wobbliness.study.cells.run.run_cell` does."""


def attempt(
    out: Path, job: Job, recipe: Recipe, do: RunCell, progress: Progress, notice: Notice
) -> Outcome:
    """Runs a cell unless it is done, running elsewhere, or was found to fail by another runner."""
    name = job.cell.name
    try:
        with lock(out, name) as is_ours:
            return (
                _attempt(out, job, recipe, do, progress, notice)
                if is_ours
                else Outcome(cell=name, result=Result.BUSY)
            )
    except CannotWrite as error:
        return Outcome(cell=name, result=Result.CANNOT_WRITE, message=str(error))
    except OSError as error:  # while reading what is there
        return Outcome(
            cell=name,
            result=Result.CANNOT_WRITE,
            message=f"cannot use {out}: {error.strerror or error}",
        )


def record_lost_cell(out: Path, job: Job, cause: str) -> Outcome:
    """Records why a cell's process ended without reporting an outcome."""
    try:
        write_failure(out, failure(job.cell.name, cause))
    except CannotWrite as error:
        return Outcome(cell=job.cell.name, result=Result.CANNOT_WRITE, message=str(error))
    return Outcome(cell=job.cell.name, result=Result.FAILED, message=cause)


def remove_unfinished_cell(out: Path, name: str) -> None:
    """Removes unfinished files of a cell whose process was stopped.

    They stay where another process is running the cell by now.
    """
    with lock(out, name) as is_ours:
        if is_ours:
            remove_unfinished_files(out, name)


def _attempt(
    out: Path, job: Job, recipe: Recipe, do: RunCell, progress: Progress, notice: Notice
) -> Outcome:
    name = job.cell.name
    found = check_integrity(out, name, with_weights=job.needs_weights)
    if found.is_done:
        return Outcome(cell=name, result=Result.DONE)
    before = read_failure(out, name)
    # another runner tried since and failed: do not repeat its failure
    if before is not None and before.attempt != job.known_failure:
        return Outcome(cell=name, result=Result.FAILED, message=before.message)
    remove_unfinished_files(out, name)
    set_aside_damaged(out, found, notice)
    # to compare with the new ones, where only the weights were lost
    weights = recorded_weights(out, name)
    try:
        do(out, job.cell, recipe, progress, notice)
    except CannotWrite:
        raise
    except Exception as error:
        failed = failure_of(name, error)
        write_failure(out, failed)
        return Outcome(cell=name, result=Result.FAILED, message=failed.message)
    finally:
        trim_malloc_heap()
    if weights is not None and recorded_weights(out, name) != weights:
        notice(
            f"{name} came out otherwise than it was recorded: other libraries or another processor"
        )
    remove_failure(out, name)
    return Outcome(cell=name, result=Result.DONE)
