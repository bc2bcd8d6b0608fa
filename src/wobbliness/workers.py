"""Threads that share work, and how many there may be."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

from wobbliness.progress import Advance

REPORT_SECONDS = 0.1


def num_cores() -> int:
    """Processor cores that this process may use: those it is bound to, and no more than OMP_NUM_THREADS where that is set.

    Schedulers tell a process its share by that variable; Ray does.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    granted = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, int(granted)) if granted.isdigit() and int(granted) > 0 else cores


def default_workers() -> int:
    """One thread per core, and where there are several one more, which runs while another waits for Python's lock."""
    cores = num_cores()
    return cores if cores == 1 else cores + 1


def for_each(function: Callable[[int], None], num_items: int, *, workers: int, advance: Advance) -> None:
    """Calls a function with 0 ... num_items - 1, in that order, from several threads.

    The threads take the next item themselves, so that the calling thread sleeps and does not compete for Python's lock.

    Args:
        function: called once with each item; thread-safe unless there is one worker.
        num_items: how many.
        workers: threads; with 1 the calling thread does all.
        advance: called in the calling thread with the number of items just done.

    Raises:
        BaseException: the first one that the function raised; items not yet begun are dropped.
    """
    if workers == 1:
        for item in range(num_items):
            function(item)
            advance(1)
        return
    queue = _Queue(num_items)
    with ThreadPoolExecutor(workers) as pool:
        running: set[Future[None]] = {pool.submit(queue.work, function) for _ in range(workers)}
        try:
            reported = 0
            while running:
                done, running = wait(running, timeout=REPORT_SECONDS, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
                finished = queue.num_done
                advance(finished - reported)
                reported = finished
        finally:
            queue.stop()


class _Queue:
    def __init__(self, num_items: int) -> None:
        self._items = iter(range(num_items))
        self._lock = threading.Lock()
        self._is_stopped = False
        self.num_done = 0

    def work(self, function: Callable[[int], None]) -> None:
        """Takes items until there are none."""
        while (item := self._next()) is not None:
            function(item)
            with self._lock:
                self.num_done += 1

    def stop(self) -> None:
        """No item is begun after this."""
        self._is_stopped = True

    def _next(self) -> int | None:
        with self._lock:
            return None if self._is_stopped else next(self._items, None)
