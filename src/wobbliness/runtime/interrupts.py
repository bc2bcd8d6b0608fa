"""Ctrl-C: answered by one line within two seconds, whatever is running.

A second one is answered at the next instruction.

A model's code may take minutes for a step in which Python runs no handler, or never return. So a
thread of its own receives the signal, and ends the process where the command has not ended by
itself.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from wobbliness.runtime.exit import end_interrupted

# For a command to stop by itself; the answer is promised within two seconds.
PATIENCE_SECONDS = 1.5


class Interrupted(Exception):
    """Error of work that was stopped by Ctrl-C; the message says in one line what is kept."""


class _State:
    """State of the interruption in this process."""

    is_received = False
    is_slow_allowed = False


@contextmanager
def clean_interrupts() -> Iterator[None]:
    """Makes the first Ctrl-C raise KeyboardInterrupt, while active.

    The process ends two seconds later, or immediately at the next one.
    """
    before = signal.getsignal(signal.SIGINT)
    # Signals are handled in the main thread alone, and a handler of the user's own stays.
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or before not in (signal.default_int_handler, end_interrupted):
        yield
        return
    signal.signal(signal.SIGINT, _handle_first)
    stop_watching = _watch()
    try:
        yield
    finally:
        # Else the end is near, and what is left of the command has to keep to it.
        if not _State.is_received:
            stop_watching()
            signal.signal(signal.SIGINT, before)


def allow_slow_stop() -> None:
    """Lets this command take as long as it needs to stop.

    It has work to keep, and stops workers of its own.
    """
    _State.is_slow_allowed = True


def is_interrupted() -> bool:
    """Checks whether Ctrl-C was pressed in a command of this process.

    Later failures are due to that.
    """
    return _State.is_received


def _handle_first(_number: int, _frame: FrameType | None) -> None:
    _State.is_received = True
    signal.signal(signal.SIGINT, end_interrupted)
    # where a callback is interrupted, as while a module is loaded, nobody can catch it
    sys.unraisablehook = _say_nothing
    raise KeyboardInterrupt


def _say_nothing(_: "sys.UnraisableHookArgs") -> None:
    """Drops a traceback: one line is said of an interruption."""


def _watch() -> Callable[[], None]:
    """Starts the thread that receives Ctrl-C even during a call that does not return.

    Returns:
        A function that stops it.
    """
    read_end, write_end = os.pipe()
    # A handler must not wait for a reader, however many signals come.
    os.set_blocking(write_end, False)
    # The C-level handler writes the signal's number to the pipe, also while Python runs nothing.
    before, is_over = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False), threading.Event()

    def wait() -> None:
        # Other signals are passed over; an empty read means that the other end was closed.
        while (number := os.read(read_end, 1)) and number[0] != signal.SIGINT:
            pass
        if number and not is_over.wait(PATIENCE_SECONDS) and not _State.is_slow_allowed:
            end_interrupted()
        os.close(read_end)

    def stop() -> None:
        is_over.set()
        signal.set_wakeup_fd(before)
        os.close(write_end)

    threading.Thread(target=wait, name="interrupts", daemon=True).start()
    return stop
