"""Files that a user names: only regular ones are opened, and no pointers of git-lfs."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

# The first line of a pointer, which stands for a file that was not fetched.
POINTER_START = b"version https://git-lfs.github.com/spec/"

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def open_regular(path: Path) -> BinaryIO:
    """Opens a file for reading, also through links, as the hub's cache has them.

    The kind is that of the opened file, so that it cannot be exchanged in between. A pipe does not
    wait for its writer, and nothing is read from a device.

    Raises:
        ValueError: it does not exist, cannot be opened, is no regular file, or is a pointer of
            git-lfs.
    """
    descriptor = _opened(path)
    # The kind of what was opened, whatever the path leads to by now.
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind != stat.S_IFREG:
        os.close(descriptor)
        raise ValueError(f"expected a regular file, got {path}, {_KINDS.get(kind, 'another kind')}")
    file = os.fdopen(descriptor, "rb")
    # Closed where the check fails: nobody else holds the file yet.
    try:
        check_no_pointer(file.read(len(POINTER_START)), path)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file


def _opened(path: Path) -> int:
    # Not all systems have the flags: without blocking for a pipe's writer, and no text on Windows.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        return os.open(path, flags)
    # A ValueError for a zero byte in the name.
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"expected a readable file, got {path}: {reason}") from error


def found_instead(path: Path) -> str:
    """Describes what is at a path where a regular file was expected, as part of a message."""
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
    except (OSError, ValueError):  # a link to itself, a name with a zero byte
        return "which does not exist"
    return f"{_KINDS.get(kind, 'another kind')}, no regular file"


def check_regular(path: Path) -> None:
    """Raises ValueError for what `open_regular` refuses.

    For readers that open a path by themselves.
    """
    open_regular(path).close()


def read_bounded(path: Path, limit: int) -> bytes:
    """Reads the whole content of a regular file.

    Args:
        path: of the file.
        limit: bytes that it may hold; one that is larger is refused unread.

    Raises:
        ValueError: as for `open_regular`, or it is larger.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise ValueError(f"expected a file of at most {limit} bytes, got {size} in {path}")
        return file.read(size)  # no more, were it to grow in the meantime


def check_no_pointer(head: bytes, path: Path) -> None:
    """Raises ValueError where a file begins as a pointer of git-lfs does.

    The file itself was never fetched.
    """
    if head.startswith(POINTER_START):
        raise ValueError(
            f"expected the file itself, got {path}, a pointer of git-lfs to it; fetch it with "
            "`git lfs pull`"
        )
