"""Suppression of what libraries print: users of a command get the program's own lines."""

import logging
import os
import sys
import sysconfig
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Read by the libraries when they are imported.
NO_PROGRESS_BARS = ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS")


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Hides logs, progress bars and warnings of libraries.

    Not those of the user's own code or of this package.

    For processes of our own, since it changes what all of a process does. Warnings that Python was
    told to show are shown.
    """
    # By the file that a record or warning comes from: loggers may have any name.
    emit, show = logging.Logger.callHandlers, warnings.showwarning

    def emit_if_ours(self: logging.Logger, record: logging.LogRecord) -> None:
        if not _is_of_a_library(record.pathname):
            emit(self, record)

    def show_if_ours(
        message: Any, category: Any, filename: str, *place: Any, **options: Any
    ) -> None:
        if not _is_of_a_library(filename):
            show(message, category, filename, *place, **options)

    for variable in NO_PROGRESS_BARS:
        os.environ.setdefault(variable, "1")
    # Not disabled altogether: `logs_of` needs the records to be made.
    logging.Logger.callHandlers = emit_if_ours  # type: ignore[method-assign]
    warnings.showwarning = show if sys.warnoptions else show_if_ours
    try:
        yield
    finally:
        logging.Logger.callHandlers = emit  # type: ignore[method-assign]
        warnings.showwarning = show


@contextmanager
def logs_of(name: str) -> Iterator[list[logging.LogRecord]]:
    """Yields the records that the calling thread logs by one logger, printed nowhere.

    For libraries that log why they fail and then raise something else.
    """
    logger, records = logging.getLogger(name), _RecordsOfThread(threading.get_ident())
    logger.addFilter(records)
    try:
        yield records.kept
    finally:
        logger.removeFilter(records)


class _RecordsOfThread(logging.Filter):
    """Filter that keeps the records of one thread; those of others pass."""

    def __init__(self, thread: int) -> None:
        super().__init__()
        self._thread = thread
        self.kept: list[logging.LogRecord] = []

    def filter(self, record: logging.LogRecord) -> bool:
        """Checks whether a record is of another thread."""
        # Dropped by its own logger, before any handler sees it.
        if record.thread == self._thread:
            self.kept.append(record)
        return record.thread != self._thread


def _is_of_a_library(filename: str) -> bool:
    """Checks whether a file is installed, and not of this package.

    The standard library is installed; `sys` and `<frozen ...>` are no files.
    """
    paths = sysconfig.get_paths()
    installed = tuple(
        f"{paths[kind]}{os.sep}" for kind in ("purelib", "platlib", "stdlib", "platstdlib")
    )
    is_own = filename.startswith(os.path.dirname(os.path.dirname(__file__)) + os.sep)
    return not is_own and (filename.startswith(("<frozen", *installed)) or filename == "sys")
