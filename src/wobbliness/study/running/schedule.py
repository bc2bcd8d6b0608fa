"""Schedule of cells: which one is run next."""

import time
from collections.abc import Iterable, Mapping

from wobbliness.study.records.integrity import needs_of
from wobbliness.study.running.engine import Job, Outcome, Result

RETRY_SECONDS = 0.5  # until a cell that another runner is running is tried again


class Schedule:
    """Jobs of one run: waiting, running, done, failed, or blocked.

    A job is blocked where a cell that it needs failed.

    Args:
        jobs: what is to be done, those that others need before them.
        failures: messages of cells that are not to be tried, by name.
    """

    def __init__(self, jobs: Iterable[Job], failures: Mapping[str, str]) -> None:
        self.failures = dict(failures)
        self._waiting = {job.cell.name: job for job in jobs}
        self._needs = {name: needs_of(job.cell) for name, job in self._waiting.items()}
        self._running: dict[str, Job] = {}
        self._not_before: dict[str, float] = {}
        self._drop_blocked()

    @property
    def is_finished(self) -> bool:
        """Checks whether nothing is waiting or running."""
        return not self._waiting and not self._running

    def take(self) -> Job | None:
        """Returns the next job that can be run now.

        The first of those whose needs are met and that no other runner is running.
        """
        now = time.monotonic()
        for name, job in self._waiting.items():
            # ready: its needs are neither waiting nor running, and it is not to be retried later
            if self._not_before.get(name, now) <= now and not self._needs[name] & (
                self._waiting.keys() | self._running.keys()
            ):
                self._running[name] = self._waiting.pop(name)
                return job
        return None

    def note(self, outcome: Outcome) -> None:
        """Records the outcome of a job."""
        job = self._running.pop(outcome.cell)
        if outcome.result is Result.BUSY:
            self._waiting[outcome.cell] = job
            self._not_before[outcome.cell] = time.monotonic() + RETRY_SECONDS
        elif outcome.result is not Result.DONE:
            self.failures[outcome.cell] = outcome.message
            self._drop_blocked()

    def _drop_blocked(self) -> None:
        lost = set(self.failures)
        for name in list(self._waiting):  # needs come first: one pass finds what follows from them
            if name in lost or self._needs[name] & lost:
                lost.add(name)
                del self._waiting[name]
