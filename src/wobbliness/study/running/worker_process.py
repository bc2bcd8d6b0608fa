"""Process that runs one cell at a time for a runner and ends when the runner does."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from wobbliness.runtime.exit import skip_final_collection
from wobbliness.runtime.quiet_libraries import quiet_libraries
from wobbliness.runtime.user_files import LoadedFiles
from wobbliness.study.recipes import Recipe
from wobbliness.study.running.engine import Job, Outcome
from wobbliness.study.running.run_cell import RunCell, attempt

GRACE_SECONDS = 5.0
PROGRESS_MESSAGES = 20  # of each cell
STARTED = ()  # the first message of a job: a process that is new has imported everything


class WorkerProcess:
    """Runner's end of a worker process."""

    def __init__(self, out: Path, recipe: Recipe, do: RunCell) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        # the files first: a recipe may hold objects whose classes they define
        arguments = (LoadedFiles(), theirs, out, recipe, do)
        self._process = context.Process(target=_work, args=arguments, daemon=True)
        with _interrupts_blocked():
            self._process.start()
        theirs.close()
        self.job: Job | None = None

    @property
    def pid(self) -> int:
        """Returns its process id."""
        return self._process.pid or 0

    def send(self, job: Job) -> bool:
        """Hands over a job; returns False where the process is dead."""
        try:
            self.connection.send(job)
        except OSError:
            return False
        self.job = job
        return True

    def receive(self) -> Any:
        """Returns the next message; None where the process is dead.

        A message is STARTED, `(done, total)`, a line or an Outcome.
        """
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            return None

    def cause_of_death(self) -> str:
        """Says in one line why the process ended."""
        self._process.join()
        code = self._process.exitcode or 0
        if code == -signal.SIGKILL:
            return "its process was killed (SIGKILL), as it happens where memory runs out"
        if code < 0:
            return f"its process was ended by {signal.Signals(-code).name}"
        return f"its process ended with exit code {code}"

    def dismiss(self) -> None:
        """Lets an idle process end by itself, so that it cleans up.

        `await_end` makes sure that it does.
        """
        self.connection.close()

    def await_end(self) -> None:
        """Waits for a process that was dismissed, and ends it where that takes too long."""
        self._process.join(GRACE_SECONDS)
        self.kill()

    def kill(self) -> None:
        """Ends the process immediately."""
        self._process.kill()
        self._process.join()
        self.connection.close()


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Hides Ctrl-C from a process started in here, from its first instruction on.

    Ours arrives afterwards.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # the first process that is spawned starts the tracker, which unblocks SIGINT in ours
    resource_tracker.ensure_running()
    # a child inherits the mask of blocked signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(
    files: LoadedFiles,  # noqa: ARG001  # unpickling them has loaded them
    connection: "Connection[Any, Any]",
    out: Path,
    recipe: Recipe,
    do: RunCell,
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the runner decides when to stop
    threading.Thread(target=_end_with_runner, daemon=True).start()
    skip_final_collection()
    with quiet_libraries():
        _do_jobs(connection, out, recipe, do)


def _do_jobs(connection: "Connection[Any, Any]", out: Path, recipe: Recipe, do: RunCell) -> None:
    while True:
        try:
            job: Job = connection.recv()
            connection.send(_do_job(connection, out, job, recipe, do))
        except (EOFError, OSError):
            return


def _do_job(
    connection: "Connection[Any, Any]", out: Path, job: Job, recipe: Recipe, do: RunCell
) -> Outcome:
    def report(done: int, total: int) -> None:
        if done == total or done % max(1, total // PROGRESS_MESSAGES) == 0:
            connection.send((done, total))

    connection.send(STARTED)
    return attempt(out, job, recipe, do, report, connection.send)


def _end_with_runner() -> None:
    """Ends a worker whose runner is gone.

    It would otherwise continue with a cell that the next runner waits for.
    """
    runner = multiprocessing.parent_process()
    if runner is not None:
        # ready when the runner has ended, however it ended
        wait([runner.sentinel])
        os._exit(1)
