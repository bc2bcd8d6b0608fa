"""Threads that share work, and how many there may be."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

from wobbliness.runtime.progress import Advance

# Between two reports of progress: often enough for a bar.
REPORT_SECONDS = 0.1


def num_cores() -> int:
    """Returns the number of CPU cores that this process may use.

    Those it is bound to, and no more than OMP_NUM_THREADS where that is set.

    Schedulers tell a process its share by that variable; Ray does.
    """
    # Containers and batch systems bind a process to some of a machine's cores.
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    granted = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, int(granted)) if granted.isdigit() and int(granted) > 0 else cores


def default_workers() -> int:
    """Returns one thread per core, and where there are several one more.

    It runs while another waits for the GIL.
    """
    cores = num_cores()
    return cores if cores == 1 else cores + 1


# The items that a thread takes its own from.
_own = threading.local()


class Stopped(Exception):
    """Error of work that was given up, because another thread's failed or was interrupted."""


def check_stopped() -> None:
    """Gives up the work of this thread where it is no longer wanted.

    Called between blocks, which may take seconds each.

    Raises:
        Stopped: nobody waits for the result.
    """
    items: Items | None = getattr(_own, "items", None)
    if items is not None and items.is_stopped:
        raise Stopped


class Items:
    """Items 0 ... n - 1, taken in this order by several threads."""

    def __init__(self, num_items: int, *, report: Advance | None = None) -> None:
        # One iterator for all threads: no item is taken twice, and fast threads take more.
        self._items = iter(range(num_items))
        self._report = report
        self._lock = threading.Lock()
        self.is_stopped = False
        self.num_done = 0

    def take(self) -> int | None:
        """Returns the next item; None where there is no more."""
        with self._lock:
            return None if self.is_stopped else next(self._items, None)

    def finish(self, num_items: int = 1) -> None:
        """Counts items as done."""
        with self._lock:
            self.num_done += num_items
        if self._report is not None:
            self._report(num_items)

    def stop(self) -> None:
        """Stops the work: no item can be taken, and running ones are given up at the next block."""
        self.is_stopped = True


def for_each(
    function: Callable[[int], None], num_items: int, *, workers: int, advance: Advance
) -> None:
    """Calls a function with 0 ... num_items - 1, in that order, from several threads.

    Args:
        function: called once with each item; thread-safe unless there is one worker.
        num_items: how many.
        workers: threads; with 1 the calling thread does all.
        advance: called in the calling thread with the number of items just done.

    Raises:
        BaseException: the first one that the function raised; items not yet done are dropped.
    """

    def work(items: Items) -> None:
        while (item := items.take()) is not None:
            function(item)
            items.finish()

    share_items(work, num_items, workers=workers, advance=advance)


def share_items(
    work: Callable[[Items], None], num_items: int, *, workers: int, advance: Advance
) -> None:
    """Runs `work` in several threads, which take their items from one queue.

    The threads take items themselves, so that the calling thread sleeps and does not compete for
    the GIL.

    Args:
        work: takes items until there are none and says which are done; called once in each thread.
        num_items: how many.
        workers: threads; with 1 the calling thread does all.
        advance: called in the calling thread with the number of items just done.

    Raises:
        BaseException: the first one that `work` raised; items not yet done are dropped.
    """

    def work_on() -> None:
        _own.items = items
        work(items)

    if workers == 1:
        work(Items(num_items, report=advance))
        return
    items = Items(num_items)
    with ThreadPoolExecutor(workers) as pool:
        running = {pool.submit(work_on) for _ in range(workers)}
        try:
            _wait_for(running, items, advance)
        finally:
            # Also after Ctrl-C: the pool waits for its threads, which stop at their next block.
            items.stop()


def _wait_for(running: set[Future[None]], items: Items, advance: Advance) -> None:
    """Reports progress until all threads have ended or one has failed."""
    reported = 0
    while running:
        # Wakes up to report progress; an exception ends the wait.
        done, running = wait(running, timeout=REPORT_SECONDS, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
        finished = items.num_done
        # In the calling thread: progress bars are not thread-safe.
        advance(finished - reported)
        reported = finished
