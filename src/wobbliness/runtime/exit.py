"""How processes of our own end, and give memory back: exit codes, Ctrl-C. It is loaded first, and loads nothing."""

import atexit
import gc
import os
import signal
from collections.abc import Callable
from typing import NoReturn

EXIT_FAILED, EXIT_BAD_INPUT, EXIT_TRIGGER = 1, 2, 3
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it
SHOW_CURSOR = b"\x1b[?25h"  # a progress bar hides it

_answered: list[bool] = []


def end_quickly() -> None:
    """Has this process end without looking through all its objects for garbage once more: up to 1.4 s where torch is loaded.

    Whatever is to be done at the end is done all the same; only objects that refer to each other
    are not taken apart.
    """
    atexit.register(_leave_objects_alone)


def answer_at_once() -> Callable[[], object]:
    """From now on Ctrl-C ends this process at once: while a command is being loaded, and when it is over.

    Returns:
        What puts the handler back that was there before.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return lambda: None
    signal.signal(signal.SIGINT, end_interrupted)
    return lambda: signal.signal(signal.SIGINT, signal.default_int_handler)


def end_interrupted(*_: object) -> None:
    """Ends this process as interrupted, and says so in one line where nothing was said of it; a handler of signals."""
    end_now(b"" if _answered else b"interrupted\n", EXIT_INTERRUPTED)


def end_now(line: bytes, code: int) -> NoReturn:
    """Ends this process, whatever its threads do, with a line on standard error."""
    if line:
        os.write(2, SHOW_CURSOR + line if os.isatty(2) else line)
    os._exit(code)


def note_answered() -> None:
    """Takes note that the user was told of the interruption: it is not said again."""
    _answered.append(True)


def give_back_freed_memory() -> None:
    """Has glibc's allocator return to the system what is free; others do so unasked, or cannot be asked.

    Blocks of many sizes leave holes in the heap. Unasked it returns none below the highest block in
    use, and what cells of different kinds leave behind would add up.
    """
    import contextlib
    import ctypes

    # another C library, or one that cannot be looked into
    with contextlib.suppress(OSError, TypeError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _leave_objects_alone() -> None:
    gc.disable()
    gc.freeze()
