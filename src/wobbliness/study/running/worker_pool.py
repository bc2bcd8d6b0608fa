"""Engine that runs cells in processes of this machine.

A process that dies or hangs costs its cell and no other.
"""

import time
from multiprocessing.connection import wait
from pathlib import Path

from wobbliness.runtime.progress import Notice
from wobbliness.study.recipes import Recipe
from wobbliness.study.records.integrity import remove_unfinished_of
from wobbliness.study.running.engine import CellProgress, Job, Outcome
from wobbliness.study.running.run_cell import RunCell, record_lost_cell
from wobbliness.study.running.worker_process import STARTED, WorkerProcess


class WorkerPool:
    """Pool of processes, started when they are first needed.

    Args:
        out: the study's folder.
        recipe: the study.
        do: does one cell.
        num_workers: processes at most.
        cell_timeout: seconds after which the process of a cell is killed; None for no limit.
        progress: called with (cell name, steps done, steps in all).
        notice: called with lines about oddities.
    """

    def __init__(
        self,
        out: Path,
        recipe: Recipe,
        do: RunCell,
        *,
        num_workers: int,
        cell_timeout: float | None,
        progress: CellProgress,
        notice: Notice,
    ) -> None:
        self._out, self._recipe, self._do = out, recipe, do
        self._num_workers, self._cell_timeout = num_workers, cell_timeout
        self._progress, self._notice = progress, notice
        self._idle: list[WorkerProcess] = []
        self._busy: dict[WorkerProcess, float] = {}  # with the time at which each started its job

    def has_room(self) -> bool:
        """Checks whether fewer cells are running than there may be processes."""
        return len(self._busy) < self._num_workers

    def submit(self, job: Job) -> None:
        """Hands a job to an idle process or to a new one."""
        while self._idle:
            worker = self._idle.pop()
            if worker.send(job):
                break
            worker.kill()
        else:
            worker = WorkerProcess(self._out, self._recipe, self._do)
            worker.send(job)
            worker.job = job  # a process that died on its start is found out when it is waited for
        self._busy[worker] = time.monotonic()

    def wait(self, seconds: float) -> list[Outcome]:
        """Returns the outcomes of processes that are ready, died, or took too long."""
        if not self._busy:
            time.sleep(seconds)
            return []
        by_connection = {worker.connection: worker for worker in self._busy}
        connections = wait(list(by_connection), seconds)
        ready = [by_connection[connection] for connection in connections]  # type: ignore[index]
        # one message of each ready process; its end closes the connection and counts as ready
        outcomes = [outcome for worker in ready if (outcome := self._read(worker)) is not None]
        return outcomes + [self._stop_overdue(worker) for worker in self._overdue()]

    def close(self) -> None:
        """Ends all processes and removes the files that they left unfinished."""
        for worker in self._busy:
            self._kill(worker)
        for worker in self._idle:
            worker.dismiss()
        for worker in self._idle:
            worker.await_end()
        self._idle, self._busy = [], {}

    def _read(self, worker: WorkerProcess) -> Outcome | None:
        """Passes on one message; an outcome frees the process."""
        job, message = worker.job, worker.receive()
        if job is None:
            return None
        if message is None:
            return self._record_lost(worker, job, worker.cause_of_death())
        if isinstance(message, Outcome):
            del self._busy[worker]
            self._idle.append(worker)
            return message
        # the time limit counts from here: a new process first imports for seconds
        if message == STARTED:
            self._busy[worker] = time.monotonic()
        elif isinstance(message, str):
            self._notice(message)
        else:
            self._progress(job.cell.name, *message)
        return None

    def _overdue(self) -> list[WorkerProcess]:
        if self._cell_timeout is None:
            return []
        now = time.monotonic()
        return [worker for worker, start in self._busy.items() if now - start > self._cell_timeout]

    def _stop_overdue(self, worker: WorkerProcess) -> Outcome:
        assert worker.job is not None
        return self._record_lost(
            worker,
            worker.job,
            f"took longer than the limit of {self._cell_timeout:g} seconds for a cell",
        )

    def _record_lost(self, worker: WorkerProcess, job: Job, cause: str) -> Outcome:
        """Takes the process out of the pool and records why.

        A fresh one takes its place when there is work.
        """
        del self._busy[worker]
        self._kill(worker)
        return record_lost_cell(self._out, job, cause)

    def _kill(self, worker: WorkerProcess) -> None:
        worker.kill()
        remove_unfinished_of(self._out, worker.pid)
