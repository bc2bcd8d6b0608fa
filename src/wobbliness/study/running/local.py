"""Engine that runs cells in the calling process, one after another."""

import time
from pathlib import Path

from wobbliness.runtime.progress import Notice
from wobbliness.study.recipes import Recipe
from wobbliness.study.running.engine import CellProgress, Job, Outcome
from wobbliness.study.running.run_cell import RunCell, attempt


class InThisProcess:
    """Engine that runs a job while it is waited for."""

    def __init__(
        self, out: Path, recipe: Recipe, do: RunCell, progress: CellProgress, notice: Notice
    ) -> None:
        self._out, self._recipe, self._do, self._progress, self._notice = (
            out,
            recipe,
            do,
            progress,
            notice,
        )
        self._job: Job | None = None

    def has_room(self) -> bool:
        """Checks whether there is no job yet."""
        return self._job is None

    def submit(self, job: Job) -> None:
        """Takes a job."""
        self._job = job

    def wait(self, seconds: float) -> list[Outcome]:
        """Runs the job, however long it takes."""
        job, self._job = self._job, None
        if job is None:
            time.sleep(seconds)
            return []

        def report(done: int, total: int) -> None:
            self._progress(job.cell.name, done, total)

        return [attempt(self._out, job, self._recipe, self._do, report, self._notice)]

    def close(self) -> None:
        """Does nothing: no job is running between two calls."""
