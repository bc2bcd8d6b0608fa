"""Locks by which several runners share a study's folder.

The operating system releases those of a process that dies, however it dies.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from wobbliness.runtime.files import CannotWrite

LOCKS = "locks"
RUNNER = "runner"


@contextmanager
def lock(out: Path, name: str, *, wait: bool = False) -> Iterator[bool]:
    """Holds a lock of a study's folder, if no one else does.

    Args:
        out: the study's folder.
        name: of a cell, or of what else is done by one at a time.
        wait: until the other one is done.

    Yields:
        Whether the lock is held; False where another one holds it.
    """
    path = _path(out, name)
    # an advisory lock of the operating system, which frees it when the process dies
    held = FileLock(path, timeout=-1 if wait else 0)
    try:
        path.parent.mkdir(exist_ok=True)
        held.acquire()
        os.utime(path)  # status reads from it since when the cell is running
    except Timeout:
        yield False
        return
    except OSError as error:
        raise CannotWrite(f"cannot write {path}: {error.strerror or error}") from error
    try:
        yield True
    finally:
        held.release()


def held_since(out: Path, name: str) -> float | None:
    """Returns the time since when some living process holds a lock; None where none does.

    In seconds since 1970.
    """
    path = _path(out, name)
    if not path.is_file():
        return None
    since = path.stat().st_mtime
    # a lock that can be taken is held by no one, whatever its file says
    probe = FileLock(path, timeout=0)
    try:
        with probe:
            return None
    except Timeout:
        return since
    except OSError:  # a folder that cannot be written to: no one works there
        return None


@contextmanager
def runner_lock(out: Path) -> Iterator[None]:
    """Marks a runner as running, also between two cells.

    Removes the marks of runners that were killed.
    """
    name = f"{RUNNER}-{socket.gethostname()}-{os.getpid()}"
    for path in (out / LOCKS).glob(f"{RUNNER}-*.lock"):
        if held_since(out, path.stem) is None:
            path.unlink(missing_ok=True)
    with lock(out, name):
        yield
    _path(out, name).unlink(missing_ok=True)


def num_runners(out: Path) -> int:
    """Counts the runners that are running."""
    return sum(
        held_since(out, path.stem) is not None for path in (out / LOCKS).glob(f"{RUNNER}-*.lock")
    )


def _path(out: Path, name: str) -> Path:
    return out / LOCKS / f"{name}.lock"
