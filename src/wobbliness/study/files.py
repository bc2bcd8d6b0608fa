"""Files that are complete or absent, also after a power cut, and the checksums by which a damaged one is found."""

import errno
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

SEAL = "checksum"
CHECKPOINTS = "checkpoints"
DAMAGED = "damaged"
CANNOT_FLUSH = (errno.EINVAL, errno.ENOTSUP)  # some network file systems flush no folders


class StudyStopped(RuntimeError):
    """A study could not be brought to its end; the message says why in one line, and what was done is kept."""


class CannotWrite(StudyStopped):
    """A file of a study could not be written: a full disk, a read-only folder."""


def write_beside(path: Path, write: Callable[[Path], object]) -> None:
    """Writes to a new file in the same folder and renames it, so that `path` is complete or absent.

    File and folder are flushed to the disk: after a power cut, too, a name stands for the whole content.

    Raises:
        CannotWrite: the disk is full, or the folder cannot be written to.
    """
    beside = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        write(beside)
        _flush(beside)
        os.replace(beside, path)
        _flush(path.parent)
    except OSError as error:
        _remove(beside)
        raise CannotWrite(f"cannot write {path}: {error.strerror or error}") from error
    except BaseException:
        _remove(beside)
        raise


def write_bytes(path: Path, content: bytes) -> str:
    """Writes a file as `write_beside` does and gives its checksum, taken before anything could go wrong on the way."""
    write_beside(path, lambda beside: beside.write_bytes(content))
    return checksum(content)


def in_order(weights: bytes) -> bytes:
    """A safetensors file with its header in order of name, so that equal weights are equal bytes: its writer shuffles it."""
    length = int.from_bytes(weights[:8], "little")
    header = json.dumps(json.loads(weights[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + weights[8 + length :]


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Strict JSON, written beside and renamed."""
    text = json.dumps(content, indent=1, allow_nan=False)
    write_beside(path, lambda beside: beside.write_text(text + "\n", encoding="utf-8"))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ValueError: the file is missing or holds no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"expected a study file {path}, which does not exist") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"expected readable JSON in {path}, got {type(error).__name__}") from error
    if not isinstance(content, dict):
        raise ValueError(f"expected a JSON object in {path}, got {type(content).__name__}")
    return content


def checksum(content: bytes) -> str:
    """SHA-256, as `sha256sum` prints it."""
    return hashlib.sha256(content).hexdigest()


def file_checksum(path: Path) -> str:
    """`checksum` of what is in a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content with the checksum of itself."""
    bare = {name: value for name, value in content.items() if name != SEAL}
    return bare | {SEAL: _content_checksum(bare)}


def is_intact(content: Mapping[str, Any]) -> bool:
    """Whether sealed content is what it was; of content without a seal nothing is known, and that is no objection."""
    if SEAL not in content:
        return True
    try:
        return bool(sealed(content)[SEAL] == content[SEAL])
    except ValueError:  # NaN, which a strict writer never wrote
        return False


def set_aside(out: Path, path: Path) -> None:
    """Moves a damaged file of a study to the folder `damaged`, where it is in nobody's way."""
    folder = out / DAMAGED
    try:
        folder.mkdir(exist_ok=True)
        number = sum(other.name.startswith(path.name) for other in folder.iterdir())
        os.replace(path, folder / (f"{path.name}.{number}" if number else path.name))
    except OSError as error:
        raise CannotWrite(f"cannot move {path} to {folder}: {error.strerror or error}") from error


def remove_unfinished(folder: Path, name: str) -> None:
    """Removes what writers that were killed had begun; the caller sees to it that no one else writes these files.

    Args:
        folder: looked through, without its subfolders.
        name: glob of the finished files' names.
    """
    for path in folder.glob(f".*-{name}"):
        _remove(path)


def remove_unfinished_of(out: Path, process: int) -> None:
    """Removes what one process, which is dead, had begun to write in a study's folder."""
    for path in out.glob(f"*/.{process}-*"):
        _remove(path)


def _content_checksum(content: Mapping[str, Any]) -> str:
    return checksum(json.dumps(content, sort_keys=True, allow_nan=False).encode())


def _flush(path: Path) -> None:
    """Asks the system to bring a file, or the names in a folder, to the disk; what cannot be asked is left to it."""
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
    except OSError:  # the folder cannot be written to, and that is reported by whoever tries to write
        return
