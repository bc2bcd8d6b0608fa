"""State of the whole process, changed for a while under one lock.

For one thread only where that can be.

Torch's number of threads, a module's training flags, its hooks and the flags of its weights are
seen by every thread. Two threads that set them and set them back at the same time leave the wrong
ones behind, or compute with the other's. So nothing of the kind is changed but inside
`borrowed_state`. Standard output and standard error are never redirected and logging is never
switched off: `quiet_thread` drops what the one thread says, and nothing that others do.
"""

import gc
import logging
import os
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

_lock = threading.RLock()
_is_forked = False


@contextmanager
def borrowed_state() -> Iterator[None]:
    """Holds the lock under which state of the process may be changed for a while.

    One thread at a time, which may enter it again; the only place for such changes.
    """
    with _lock:  # the lock of the moment: a process that is forked meanwhile has another one
        yield


@contextmanager
def without_collection() -> Iterator[None]:
    """Pauses garbage collection, for imports: a fifth of the time that torch's take."""
    with borrowed_state():
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if was_enabled:
                gc.enable()


def is_forked() -> bool:
    """Checks whether this process is a copy that `fork` made.

    The threads of libraries, such as torch's own, are not there.
    """
    return _is_forked


def _replace_lock() -> None:
    """Gives a forked process a lock of its own.

    The thread that holds the old one is not there to release it.
    """
    # New, not released: what the lost thread had changed is not known either.
    global _lock, _is_forked
    _lock, _is_forked = threading.RLock(), True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_replace_lock)


@contextmanager
def quiet_thread(*packages: str) -> Iterator[None]:
    """Drops warnings and log records of the thread that enters, and of no other.

    Args:
        packages: their loggers, known when it is entered, are kept quiet.
    """
    thread, loggers = _ThisThread(), list(_loggers_of(packages))
    with borrowed_state():
        ignored: Any = ("ignore", thread, Warning, None, 0)
        filters: Any = warnings.filters
        # First in the list, so that it applies before any other filter.
        filters.insert(0, ignored)
        # A filter, not a level: other threads log as before.
        for logger in loggers:
            logger.addFilter(thread)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeFilter(thread)
            thread.is_over = True
            current: Any = warnings.filters  # another thread may have set a copy in its place
            # The entry may be in the list of then or in a copy set since.
            for known in (filters, current):
                if ignored in known:
                    known.remove(ignored)


class _ThisThread(logging.Filter):
    """Filter of what one thread says.

    As a pattern of warnings it matches that, as a filter of records it drops it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._thread, self.is_over = threading.get_ident(), False

    @property
    def _is_here(self) -> bool:
        return not self.is_over and threading.get_ident() == self._thread

    def match(self, _: str) -> bool:
        """Checks whether a warning is this thread's; Python asks patterns so."""
        return self._is_here

    def filter(self, _: logging.LogRecord) -> bool:
        """Checks whether a record may pass."""
        return not self._is_here


def _loggers_of(packages: Iterable[str]) -> Iterator[logging.Logger]:
    """Yields the loggers of these packages and all within them.

    A filter of a logger does not see what its children say.
    """
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and name.split(".")[0] in packages:
            yield logger
