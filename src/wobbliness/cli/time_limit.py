"""Time limit of a command that holds whatever is running.

Also for a call that never returns, and one that holds the GIL.
"""

import faulthandler
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from wobbliness.runtime.exit import EXIT_FAILED, end_now

MAX_SECONDS = 1e8  # three years; the system's clocks take no more
GRACE_SECONDS = 0.5  # for the thread to end the process, before that is done without Python

# Says that the time is over, for a process that cannot: it was ended while it had promised nothing,
# and late enough.
_ANNOUNCE = """
import os, sys, time
is_told = sys.stdin.buffer.read()
if not is_told and time.monotonic() >= float(sys.argv[1]):
    os.write(2, sys.argv[2].encode())
"""


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Ends this process with one line and exit code 1 where what is done inside takes longer.

    A thread does it; where no thread gets the GIL, a timer of the system's does, and a small second
    process says so.

    Args:
        seconds: the limit; None for none.

    Raises:
        ValueError: it is no positive number of seconds.
    """
    if seconds is None:
        yield
        return
    if not 0 < seconds <= MAX_SECONDS:
        raise ValueError(
            f"expected a time limit above 0 and up to {MAX_SECONDS:g} seconds, got {seconds:g}"
        )
    line = (
        f"error: expected to be done within the time limit of {seconds:g} s, and was not: ended\n"
    ).encode()
    with _ended_after(seconds, line):
        yield


@contextmanager
def _ended_after(seconds: float, line: bytes) -> Iterator[None]:
    announcer, is_over = _start_announcer(seconds, line), threading.Event()

    def end() -> None:
        if not is_over.wait(seconds):
            _silence(announcer)
            end_now(line, EXIT_FAILED)

    # A daemon: a command that is done does not wait for its time limit.
    threading.Thread(target=end, name="time limit", daemon=True).start()
    with open(os.devnull, "w") as nowhere:
        # A timer in C: it needs no GIL, and ends the process by itself.
        faulthandler.dump_traceback_later(seconds + GRACE_SECONDS, exit=True, file=nowhere)
        try:
            yield
        finally:
            # In this order: no end may be announced once the work is done.
            is_over.set()
            faulthandler.cancel_dump_traceback_later()
            _silence(announcer)
            announcer.wait()


def _start_announcer(seconds: float, line: bytes) -> "subprocess.Popen[bytes]":
    # Isolated and without site: it starts quickly and imports nothing of the user's.
    command = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        _ANNOUNCE,
        str(time.monotonic() + seconds),
        line.decode(),
    ]
    # A session of its own: Ctrl-C on the terminal must not end it before its parent.
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
    )


def _silence(announcer: "subprocess.Popen[bytes]") -> None:
    assert announcer.stdin is not None
    try:
        # Anything written says that the line was printed, or is not needed.
        announcer.stdin.write(b"told")
        announcer.stdin.close()
    except OSError:  # it has ended
        return
