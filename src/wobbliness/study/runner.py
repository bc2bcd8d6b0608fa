"""Runs the cells of a study side by side and leaves records. What is recorded already is not done again."""

import multiprocessing
import queue
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wobbliness.progress import Progress, ignore_progress
from wobbliness.study.cell_plan import plan
from wobbliness.study.cells import run_cell
from wobbliness.study.data import require_data
from wobbliness.study.recipes import Recipe
from wobbliness.study.records import claim_folder, is_done
from wobbliness.study.specs import Cell, network_of
from wobbliness.workers import num_cores

POLL_SECONDS = 0.2

CellProgress = Callable[[str, int, int], None]
"""Called with (cell name, steps done, steps in all)."""


class StudyFailed(RuntimeError):
    """A cell raised; the other cells were done all the same."""


def run_study(
    recipe: Recipe,
    out: Path,
    *,
    only: Iterable[str] | None = None,
    workers: int | None = None,
    progress: CellProgress | None = None,
) -> None:
    """Runs every cell of the study that has no record yet.

    Args:
        recipe: the study.
        out: its folder, new or this recipe's own.
        only: ids of the claims wanted; all by default.
        workers: processes, each with one core; by default one per core. With 1 the cells run in this process.
        progress: called with (cell name, steps done, steps in all).

    Raises:
        ValueError: the folder belongs to another recipe, a claim is unknown, or a data set cannot be had.
        StudyFailed: some cell raised, when all that could be done is done.
    """
    cells = plan(recipe, only)
    left = [cell for cell in cells if not is_done(out / "records", cell.name)]
    for dataset in {network_of(cell.spec).dataset for cell in left}:
        require_data(dataset)
    claim_folder(out, recipe)
    report = progress or ignore_progress
    num_workers = min(workers or num_cores(), len(left))
    failures = _run_here(left, out, recipe, report) if num_workers <= 1 else _run_pool(left, out, recipe, report, num_workers)
    if failures:
        name, error = failures[0]
        raise StudyFailed(f"{len(failures)} of {len(left)} cells failed; {name}: {type(error).__name__}: {error}")


def _run_here(cells: list[Cell], out: Path, recipe: Recipe, report: CellProgress) -> list[tuple[str, BaseException]]:
    failures: list[tuple[str, BaseException]] = []
    for cell in cells:
        if cell.needs in {name for name, _ in failures}:
            continue
        try:
            run_cell(out, cell, recipe, _named(report, cell.name))
        except Exception as error:
            failures.append((cell.name, error))
        report(cell.name, 1, 1)
    return failures


def _run_pool(
    cells: list[Cell], out: Path, recipe: Recipe, report: CellProgress, num_workers: int
) -> list[tuple[str, BaseException]]:
    """A cell is handed out as soon as the one it needs is done; cells whose need failed are left out."""
    waiting, failures = list(cells), list[tuple[str, BaseException]]()
    with _pool(num_workers) as (pool, messages):
        running: dict[Future[None], str] = {}
        while waiting or running:
            blocked = {cell.name for cell in waiting} | set(running.values())
            ready = [cell for cell in waiting if cell.needs not in blocked]
            failed = {name for name, _ in failures}
            running |= {pool.submit(_run_in_pool, out, cell, recipe): cell.name for cell in ready if cell.needs not in failed}
            waiting = [cell for cell in waiting if cell.needs in blocked]
            done, _ = wait(running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
            _drain(messages, report)
            for future in done:
                name = running.pop(future)
                report(name, 1, 1)
                if (error := future.exception()) is not None:
                    failures.append((name, error))
    return failures


@contextmanager
def _pool(num_workers: int) -> Iterator[tuple[ProcessPoolExecutor, Any]]:
    """Processes with a queue for their progress; on the way out by an error, cells not yet begun are dropped."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        messages = manager.Queue()
        pool = ProcessPoolExecutor(num_workers, mp_context=context, initializer=_start_worker, initargs=(messages,))
        try:
            yield pool, messages
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_messages: Any = None


def _start_worker(messages: Any) -> None:
    global _messages
    _messages = messages


def _run_in_pool(out: Path, cell: Cell, recipe: Recipe) -> None:
    def report(done: int, total: int) -> None:
        if done == total or done % max(1, total // 20) == 0:
            _messages.put((cell.name, done, total))

    run_cell(out, cell, recipe, report)


def _drain(messages: Any, report: CellProgress) -> None:
    while True:
        try:
            report(*messages.get_nowait())
        except queue.Empty:
            return


def _named(report: CellProgress, name: str) -> Progress:
    return lambda done, total: report(name, done, total)
