"""End of the program's own processes: exit codes, Ctrl-C, malloc_trim.

It is loaded first, and imports nothing but the standard library.
"""

import atexit
import gc
import os
import signal
from collections.abc import Callable
from typing import NoReturn

EXIT_FAILED, EXIT_BAD_INPUT, EXIT_TRIGGER = 1, 2, 3
# 128 + SIGINT, as shells have it.
EXIT_INTERRUPTED = 130
# A progress bar hides the cursor, and cannot show it again any more.
SHOW_CURSOR = b"\x1b[?25h"

_reported: list[bool] = []


def skip_final_collection() -> None:
    """Skips the final garbage collection of this process: up to 1.4 s where torch is loaded.

    Exit handlers still run; only objects that refer to each other are not taken apart.
    """
    atexit.register(_freeze_objects)


def end_on_interrupt() -> Callable[[], object]:
    """Makes Ctrl-C end this process immediately from now on.

    For the time while a command is being loaded, and when it is over.

    Returns:
        A function that restores the handler that was there before.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return lambda: None
    signal.signal(signal.SIGINT, end_interrupted)
    return lambda: signal.signal(signal.SIGINT, signal.default_int_handler)


def end_interrupted(*_: object) -> None:
    """Ends this process as interrupted; a signal handler.

    It says so in one line where that was not said before.
    """
    end_now(b"" if _reported else b"interrupted\n", EXIT_INTERRUPTED)


def end_now(line: bytes, code: int) -> NoReturn:
    """Ends this process, whatever its threads do, with a line on standard error."""
    # Unbuffered: a stream may be locked by the thread that was interrupted.
    if line:
        os.write(2, SHOW_CURSOR + line if os.isatty(2) else line)
    os._exit(code)


def note_reported() -> None:
    """Records that the user was told of the interruption: it is not said again."""
    _reported.append(True)


def trim_malloc_heap() -> None:
    """Returns free memory to the system by glibc's malloc_trim.

    Other allocators do so unasked, or cannot be asked.

    Blocks of many sizes leave holes in the heap. Unasked glibc returns none below the highest block
    in use, and what cells of different kinds leave behind would add up.
    """
    import contextlib
    import ctypes

    # another C library, or one that cannot be loaded
    with contextlib.suppress(OSError, TypeError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _freeze_objects() -> None:
    # Frozen objects are left out of the collection that the interpreter makes at its end.
    gc.disable()
    gc.freeze()
