"""Checks of the places to write to, made before the work.

Minutes later is too late to say that a file cannot be written.
"""

import errno
import os
import stat
from pathlib import Path

# A disk that has no room for as much is full.
PROBE_BYTES = 2**16
# Of a file name, where the system does not tell.
NAME_BYTES = 255


def check_file(path: str | Path) -> None:
    """Checks that a file can be written.

    A new file in the same folder, or in that of a link's target, is made and removed.

    Raises:
        ValueError: the folder does not exist or cannot be written to, the disk is full, the name is
            too long, or the path is a folder, a device or a pipe.
    """
    file = Path(path)
    try:
        _check_kind(file)
        _check_name(file)
        _probe(Path(os.path.realpath(file)).parent)
    except OSError as error:
        raise ValueError(
            f"expected a file that can be written, got {path}: {error.strerror or error}"
        ) from error


def check_folder(path: str | Path) -> None:
    """Checks that files can be written to a folder, which may be new.

    Missing folders are made and removed.

    Raises:
        ValueError: likewise.
    """
    folder = Path(path)
    # Also a dangling link counts as there: it is not replaced by a folder.
    missing = [place for place in (folder, *folder.parents) if not os.path.lexists(place)]
    made: list[Path] = []
    try:
        # From the top down, and removed from the bottom up.
        for place in reversed(missing):
            place.mkdir()
            made.append(place)
        _probe(folder)
    except OSError as error:
        raise ValueError(
            f"expected a folder that can be written, got {path}: {error.strerror or error}"
        ) from error
    finally:
        for place in reversed(made):
            place.rmdir()


def _check_kind(file: Path) -> None:
    """Checks that the path is a file or nothing; a link counts as its target."""
    # A dangling link, too, is a name that a file can be written to.
    try:
        mode = os.stat(file).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "a device, a pipe or a socket, no file")


def _check_name(file: Path) -> None:
    """Checks the length of a file's name.

    The system reports too long a one only where nothing else is wrong.
    """
    length = len(os.fsencode(file.name))
    if not file.name or length > NAME_BYTES:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))


def _probe(folder: Path) -> None:
    probe = folder / f".{os.getpid()}-probe"
    try:
        with probe.open("xb") as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
            # A full disk or quota may show only when the bytes are flushed.
            os.fsync(file.fileno())
    finally:
        probe.unlink(missing_ok=True)
