"""Ctrl-C: the first one stops cleanly, a second one at the next instruction."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class Interrupted(Exception):
    """Work was stopped by Ctrl-C; the message says in one line what is kept."""


@contextmanager
def clean_interrupts() -> Iterator[None]:
    """The first Ctrl-C raises KeyboardInterrupt in here; one that comes while that is dealt with ends the process."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) != signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _first(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, _second)
    raise KeyboardInterrupt


def _second(_number: int, _frame: FrameType | None) -> None:
    os._exit(EXIT_INTERRUPTED)
