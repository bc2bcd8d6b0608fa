"""Atomic files, complete or absent also after a power cut, and checksums that reveal damage.

A study's folder may be a stranger's: nothing in it is followed out of it, and nothing is read that
has no end.
"""

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

SEAL = "checksum"
CHECKPOINTS = "checkpoints"
DAMAGED = "damaged"
# Folder of a study being unpacked; one that was killed leaves it.
UNPACKING = ".unpacking"
# Likewise, of one being packed.
PACKING = ".packing"
# Some network file systems flush no folders.
CANNOT_FLUSH = (errno.EINVAL, errno.ENOTSUP)
# Eighty times the largest record of the published studies; in memory it may take twenty times as
# much.
MAX_JSON_BYTES = 2**24
# Far from Python's limit of recursion, which later readers of the content have to stay below.
MAX_JSON_DEPTH = 32
# Of most file systems.
_MAX_NAME_BYTES = 255
# A name that a killed process may have left, with its process id in front.
_UNFINISHED = re.compile(r"\.[1-9][0-9]{0,9}-(?P<name>.+)")


class StudyStopped(RuntimeError):
    """Error of a study that could not be finished.

    The message says why in one line; what was done is kept.
    """


class CannotWrite(StudyStopped):
    """Error of a file of a study that could not be written: a full disk, a read-only folder."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Writes to a new file in the same folder and renames it to `path`.

    So `path` is complete or absent.

    File and folder are flushed to the disk: after a power cut, too, a name stands for the whole
    content.

    Raises:
        CannotWrite: the disk is full, or the folder cannot be written to.
    """
    partial = _partial_path(path)
    try:
        # Content first, then the name: each is on the disk before the next step.
        _create(partial, path)
        write(partial)
        _flush(partial)
        move_into_place(partial, path)
        _flush(path.parent)
    except OSError as error:
        _remove(partial)
        raise CannotWrite(f"cannot write {path}: {error.strerror or error}") from error
    # Also KeyboardInterrupt: nothing unfinished is left, unless the process is killed.
    except BaseException:
        _remove(partial)
        raise


def write_named(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file that the user named, as `write_atomically` does.

    Where it is a link of theirs, the file that it leads to.

    Raises:
        CannotWrite: as for `write_atomically`, or the file is a device or a pipe.
    """
    try:
        write_atomically(_replaceable(path), write)
    except ValueError as error:
        raise CannotWrite(f"cannot write {path}: {error}") from error


def make_folder(folder: Path) -> None:
    """Makes a folder, with those above it; it may be there already.

    Raises:
        CannotWrite: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWrite(f"cannot write {folder}: {error.strerror or error}") from error


def write_bytes(path: Path, content: bytes) -> str:
    """Writes a file as `write_atomically` does and returns its checksum.

    The checksum is taken before anything could go wrong on the way.
    """
    write_atomically(path, lambda partial: partial.write_bytes(content))
    return checksum(content)


def in_order(weights: bytes) -> bytes:
    """Sorts the header of a safetensors file by name, so that equal weights are equal bytes.

    Its writer shuffles the header.
    """
    # Layout: 8 bytes of length, the JSON header, the tensors.
    length = int.from_bytes(weights[:8], "little")
    header = json.dumps(
        json.loads(weights[8 : 8 + length]), sort_keys=True, separators=(",", ":")
    ).encode()
    # Aligned to 8 bytes with spaces, as the format asks.
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + weights[8 + length :]


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes strict JSON as `write_atomically` does."""
    # Strict: NaN is no JSON, and other readers refuse it.
    text = json.dumps(content, indent=1, allow_nan=False)
    write_atomically(path, lambda partial: partial.write_text(text + "\n", encoding="utf-8"))


def read_regular(path: Path, most_bytes: int) -> bytes:
    """Reads a regular file: not behind a link, no device, no pipe, which might never end.

    Args:
        path: of the file.
        most_bytes: it may hold; a larger one is refused unread.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be read.
        ValueError: it is something else, or larger.
    """
    # No link is followed, and opening a pipe does not wait for a writer.
    flags = (
        os.O_RDONLY
        | getattr(os, "O_NOFOLLOW", 0)
        | getattr(os, "O_NONBLOCK", 0)
        | getattr(os, "O_BINARY", 0)
    )
    with open(path, "rb", opener=lambda name, _: os.open(name, flags)) as file:
        # Of the opened file: the path may be exchanged in between.
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("no regular file")
        if found.st_size > most_bytes:
            raise ValueError(f"{found.st_size} bytes, more than {most_bytes}")
        return file.read(most_bytes)


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object from a file.

    Raises:
        ValueError: the file is missing or holds no JSON object, or a very large or deep one.
    """
    try:
        content = read_regular(path, MAX_JSON_BYTES)
    except FileNotFoundError:
        raise ValueError(f"expected a study file {path}, which does not exist") from None
    except (OSError, ValueError) as error:
        reason = str(error) if type(error) is ValueError else type(error).__name__
        raise ValueError(f"expected readable JSON in {path}, got {reason}") from error
    return parse_json(content, str(path))


def parse_json(content: bytes | str, source: str) -> dict[str, Any]:
    """Parses a JSON object.

    Args:
        content: the text.
        source: the origin of the text, for messages.

    Raises:
        ValueError: it is no JSON object, or a very large or deep one.
    """
    if len(content) > MAX_JSON_BYTES:
        raise ValueError(
            f"expected at most {MAX_JSON_BYTES} bytes of JSON in {source}, got {len(content)}"
        )
    found = _loaded(content, source)
    if not isinstance(found, dict):
        raise ValueError(f"expected a JSON object in {source}, got {type(found).__name__}")
    if not _is_shallow(found):
        raise ValueError(f"expected JSON of at most {MAX_JSON_DEPTH} levels in {source}, got more")
    return found


def _loaded(content: bytes | str, source: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"expected readable JSON in {source}, got {type(error).__name__}"
        ) from error


def _is_shallow(content: Any) -> bool:
    level = [content]
    # Level by level, without recursion.
    for _ in range(MAX_JSON_DEPTH):
        level = [
            part
            for value in level
            if isinstance(value, dict | list)
            for part in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return True
    return False


def check_study_folder(folder: Path) -> None:
    """Refuses links, pipes and devices inside of a study's folder.

    The folder itself may be a link of the user's.

    Whatever is read, written, locked or removed in the folder afterwards is in the folder.

    Raises:
        ValueError: there is one, or the folder's own name is none.
    """
    _check_name(folder)
    folders = [folder]
    # Folder by folder, without recursion: a stranger's may be nested to any depth.
    while folders:
        for entry in _entries(folders.pop()):
            if entry.is_dir(follow_symlinks=False):
                folders.append(Path(entry.path))
            elif not entry.is_file(follow_symlinks=False):
                what = "a link" if entry.is_symlink() else "a pipe or a device"
                raise ValueError(
                    f"expected plain files and folders in the study's folder, got {entry.path}, "
                    f"{what}"
                )


def _check_name(folder: Path) -> None:
    """Raises ValueError for a name that the system refuses; a missing folder is no error yet."""
    try:
        folder.lstat()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
            raise ValueError(
                f"expected a study's folder, got {folder}: {error.strerror or error}"
            ) from error


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yields the entries of a folder; none where it is missing or may not be read.

    Then nothing in it is used either.
    """
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError:
        return


def checksum(content: bytes) -> str:
    """Computes SHA-256, as `sha256sum` prints it."""
    return hashlib.sha256(content).hexdigest()


def file_checksum(path: Path) -> str:
    """Computes the `checksum` of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the content with the checksum of itself."""
    # The seal covers all but itself.
    bare = {name: value for name, value in content.items() if name != SEAL}
    return bare | {SEAL: _content_checksum(bare)}


def is_intact(content: Mapping[str, Any]) -> bool:
    """Checks that sealed content matches its seal.

    Content without a seal is accepted.
    """
    if SEAL not in content:
        return True
    try:
        return bool(sealed(content)[SEAL] == content[SEAL])
    except (ValueError, RecursionError):  # NaN, which a strict writer never wrote
        return False


def set_aside(out: Path, path: Path) -> None:
    """Moves a damaged file of a study to the folder `damaged`, out of the way."""
    folder = out / DAMAGED
    try:
        folder.mkdir(exist_ok=True)
        taken = {other.name for other in folder.iterdir()}
        names = (
            f"{path.name}.{number}" if number else path.name for number in range(len(taken) + 1)
        )
        os.replace(path, folder / next(name for name in names if name not in taken))
    except OSError as error:
        raise CannotWrite(f"cannot move {path} to {folder}: {error.strerror or error}") from error


def remove_unfinished(folder: Path, names: Collection[str]) -> None:
    """Removes the unfinished files of writers that were killed.

    The caller sees to it that no one else writes these files.

    Args:
        folder: looked through, without its subfolders.
        names: of the finished files; nothing else that lies there is touched.
    """
    for entry in list(_entries(folder)):
        if unfinished_name(entry.name) in names and entry.is_file(follow_symlinks=False):
            _remove(Path(entry.path))


def unfinished_name(name: str) -> str | None:
    """Returns the finished file's name, for the name that `write_atomically` starts with."""
    found = _UNFINISHED.fullmatch(name)
    return found["name"] if found else None


def _content_checksum(content: Mapping[str, Any]) -> str:
    # Of the sorted content, not of the file: it does not matter how a writer orders or indents.
    return checksum(json.dumps(content, sort_keys=True, allow_nan=False).encode())


def _partial_path(path: Path) -> Path:
    """Returns the name under which a file is started: in its folder, with its ending.

    Writers choose the format by the ending.
    """
    name = f".{os.getpid()}-{path.name}"
    if len(os.fsencode(name)) > _MAX_NAME_BYTES:
        name = f".{os.getpid()}-{checksum(os.fsencode(path.name))}{path.suffix}"
    return path.with_name(name)


def _create(partial: Path, path: Path) -> None:
    """Makes a new file, no one else's and no link.

    It may be read by no more people than the one that it will replace.
    """
    partial.unlink(missing_ok=True)  # left by a killed process with this one's id
    # O_EXCL: where a stranger has put a link of that name, nothing is written through it.
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    before = _replaced(path)
    if before is not None:
        with suppress(OSError):  # a file system without modes
            partial.chmod(before.st_mode & 0o777 | stat.S_IRUSR | stat.S_IWUSR)


def move_into_place(new: Path, path: Path) -> None:
    """Renames a file to its final path; one that was there hands on its mode and owner."""
    _take_mode(new, path)
    new.replace(path)


def _take_mode(partial: Path, path: Path) -> None:
    """Gives a new file the mode, and where allowed the owner, of the one that it replaces."""
    before, now = _replaced(path), partial.stat()
    if before is None:
        return
    # The owner first: changing it may clear bits of the mode.
    with suppress(OSError):
        if (before.st_uid, before.st_gid) != (now.st_uid, now.st_gid) and hasattr(os, "chown"):
            os.chown(partial, before.st_uid, before.st_gid)
    with suppress(OSError):
        partial.chmod(before.st_mode & 0o777)


def _replaced(path: Path) -> os.stat_result | None:
    """Returns the status of the file that will be replaced.

    None where there is none, or a link, which has no mode of its own.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def _replaceable(path: Path) -> Path:
    """Returns the file to be replaced, behind links; ValueError where that is no file."""
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    try:
        mode = target.lstat().st_mode
    except FileNotFoundError:
        return target
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a link, a pipe or a device"
        raise ValueError(f"expected a file that can be written, got {path}, {what}")
    return target


def _flush(path: Path) -> None:
    """Flushes a file, or the names in a folder, to the disk where the system can."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # folders cannot be opened everywhere
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in CANNOT_FLUSH:
            raise
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # a read-only folder, which is reported by whoever tries to write
        return
