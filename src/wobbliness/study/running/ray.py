"""Engine that runs cells on a Ray cluster, each where there is room.

A cell whose node dies is run on another one.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wobbliness.runtime.errors import cause_of
from wobbliness.runtime.files import CannotWrite
from wobbliness.runtime.progress import Notice
from wobbliness.runtime.ray import on_this_node
from wobbliness.study.recipes import Recipe, Resources
from wobbliness.study.records.failures import Failure, read_failure, remove_failure, write_failure
from wobbliness.study.records.integrity import needs_of
from wobbliness.study.running.engine import CellProgress, Job, Outcome, Result
from wobbliness.study.running.run_cell import (
    RunCell,
    attempt,
    record_lost_cell,
    remove_unfinished_cell,
)
from wobbliness.study.running.store import Store

# of one cell: a node may die, but what kills its fourth process is the cell's own doing
MAX_STARTS = 4
GRACE_SECONDS = 10.0
PROGRESS_MESSAGES = 20  # of each cell
GIB = 2**30


class RayEngine:
    """Engine that hands every job to Ray immediately.

    So a cluster that grows on demand sees the whole demand.

    Args:
        ray: the module, connected.
        out: the study's folder; on every node the same one, unless there is a store.
        recipe: the study; `recipe.resources` are granted to each cell.
        do: does one cell.
        max_cells: cells in Ray's hands at most; None for all that can be done.
        cell_timeout: seconds after which a cell is stopped, counted from its beginning; None for no
            limit.
        store: through which nodes that do not share the folder get and leave files; None where they
            share it.
        progress: called with (cell name, steps done, steps in all).
        notice: called with lines about oddities.
    """

    def __init__(
        self,
        ray: Any,
        out: Path,
        recipe: Recipe,
        do: RunCell,
        *,
        max_cells: int | None,
        cell_timeout: float | None,
        store: Store | None,
        progress: CellProgress,
        notice: Notice,
    ) -> None:
        self._ray, self._out, self._max_cells, self._cell_timeout = (
            ray,
            out,
            max_cells,
            cell_timeout,
        )
        self._store, self._progress, self._notice = store, progress, notice
        board: Any = ray.remote(num_cpus=0, scheduling_strategy=on_this_node(ray))(_MessageBoard)
        self._board = board.remote()
        work = ray.remote(max_retries=MAX_STARTS - 1, **_granted(recipe.resources))(_work)
        where = out.resolve() if store is None else store.url
        settings = ray.put((where, recipe, do))
        self._start: Callable[[Job], Any] = lambda job: work.remote(self._board, settings, job)
        self._running_jobs: dict[Any, Job] = {}
        self._start_times: dict[str, list[float]] = {}

    def has_room(self) -> bool:
        """Checks whether fewer cells than asked for are in Ray's hands."""
        return self._max_cells is None or len(self._running_jobs) < self._max_cells

    def submit(self, job: Job) -> None:
        """Hands a job to Ray."""
        self._running_jobs[self._start(job)] = job
        self._start_times[job.cell.name] = []

    def wait(self, seconds: float) -> list[Outcome]:
        """Returns the outcomes of the tasks that have ended.

        So also of those that are stopped because they took too long or died too often.
        """
        if not self._running_jobs:
            time.sleep(seconds)
            return []
        # as many as there are: wait for the full time unless all have ended
        ended, _ = self._ray.wait(
            list(self._running_jobs), num_returns=len(self._running_jobs), timeout=seconds
        )
        self._pass_on_messages()
        outcomes = [self._outcome(task) for task in ended]
        return outcomes + [self._stop(task, cause) for task, cause in self._jobs_to_stop()]

    def close(self) -> None:
        """Stops all tasks and waits briefly for their end.

        Files that they left unfinished are removed.
        """
        tasks = list(self._running_jobs)
        for task in tasks:
            self._ray.cancel(task, force=True)
        if tasks:
            self._ray.wait(tasks, num_returns=len(tasks), timeout=GRACE_SECONDS)
        # with a store, tasks write to folders of their own nodes
        if self._store is None:
            for job in self._running_jobs.values():
                remove_unfinished_cell(self._out, job.cell.name)
        self._running_jobs = {}
        self._ray.kill(self._board)

    def _pass_on_messages(self) -> None:
        for name, message in self._ray.get(self._board.take.remote()):
            if isinstance(message, str):
                self._notice(message)
            elif message == ():
                self._start_times.setdefault(name, []).append(time.monotonic())
            else:
                self._progress(name, *message)

    def _outcome(self, task: Any) -> Outcome:
        job = self._running_jobs.pop(task)
        try:
            outcome, failed = self._ray.get(task)
        except self._ray.exceptions.RayError as error:
            return record_lost_cell(self._out, job, _cause(self._ray, error))
        return outcome if self._store is None else self._fetched(self._store, job, outcome, failed)

    def _fetched(self, store: Store, job: Job, outcome: Outcome, failed: Failure | None) -> Outcome:
        """Fetches the files of a cell from the store into the study's folder."""
        name = job.cell.name
        try:
            if failed is not None:
                write_failure(self._out, failed)
            elif outcome.result is Result.DONE:
                store.fetch(self._out, name)
                remove_failure(self._out, name)
        except CannotWrite as error:
            return Outcome(cell=name, result=Result.CANNOT_WRITE, message=str(error))
        return outcome

    def _jobs_to_stop(self) -> Iterator[tuple[Any, str]]:
        now = time.monotonic()
        for task, job in list(self._running_jobs.items()):
            starts = self._start_times[job.cell.name]
            # time counts from the last start: a restarted task has its full time again
            if self._cell_timeout is not None and starts and now - starts[-1] > self._cell_timeout:
                yield (
                    task,
                    f"took longer than the limit of {self._cell_timeout:g} seconds for a cell",
                )
            elif len(starts) > MAX_STARTS:  # Ray restarts a task whose memory ran out without limit
                yield task, f"its process died {MAX_STARTS} times"

    def _stop(self, task: Any, cause: str) -> Outcome:
        self._ray.cancel(task, force=True)
        self._ray.wait([task], timeout=GRACE_SECONDS)
        return record_lost_cell(self._out, self._running_jobs.pop(task), cause)


class _MessageBoard:
    """Messages of the tasks for the runner; an actor on the runner's node."""

    def __init__(self) -> None:
        self._messages: list[tuple[str, Any]] = []

    def put(self, name: str, message: Any) -> None:
        """Adds a message: `()` for a start, `(done, total)`, or a line."""
        self._messages.append((name, message))

    def take(self) -> list[tuple[str, Any]]:
        """Returns the messages since the last call."""
        messages, self._messages = self._messages, []
        return messages


def _granted(resources: Resources) -> dict[str, Any]:
    memory = {} if resources.memory_gib is None else {"memory": int(resources.memory_gib * GIB)}
    return {"num_cpus": resources.cpus, "num_gpus": resources.gpus, **memory}


def _cause(ray: Any, error: Exception) -> str:
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return f"the memory of its node ran out {MAX_STARTS} times"
    if isinstance(error, ray.exceptions.WorkerCrashedError | ray.exceptions.NodeDiedError):
        return f"its process died {MAX_STARTS} times"
    return cause_of(error)


def _work(
    board: Any, settings: tuple[Path | str, Recipe, RunCell], job: Job
) -> tuple[Outcome, Failure | None]:
    """Runs a job on a node; this is Ray's task."""
    name, (where, recipe, do) = job.cell.name, settings

    def report(done: int, total: int) -> None:
        # each message is a call to an actor on another node
        if done == total or done % max(1, total // PROGRESS_MESSAGES) == 0:
            board.put.remote(name, (done, total))

    def notice(line: str) -> None:
        board.put.remote(name, line)

    board.put.remote(name, ())
    if isinstance(where, Path):
        return attempt(where, job, recipe, do, report, notice), None
    store = Store(where)
    with _folder_with_needs(store, job) as folder:
        outcome = attempt(folder, job, recipe, do, report, notice)
        try:
            store.keep(folder, name)
        except CannotWrite as error:
            return Outcome(cell=name, result=Result.CANNOT_WRITE, message=str(error)), None
        return outcome, read_failure(folder, name)


@contextmanager
def _folder_with_needs(store: Store, job: Job) -> Iterator[Path]:
    """Yields a folder of this node with the cells that a job needs."""
    folder = Path(tempfile.mkdtemp(prefix="wobbliness-"))
    try:
        for part in ("records", "networks", "perturbations"):
            (folder / part).mkdir()
        for name in needs_of(job.cell):
            store.fetch(folder, name)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
