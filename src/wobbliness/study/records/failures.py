"""Failures of cells, kept until the cell is done."""

import traceback
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from wobbliness.runtime.errors import condensed
from wobbliness.runtime.files import is_intact, make_folder, read_json, sealed, write_json

FAILED = "failed"
MAX_MESSAGE = 1_000  # characters of a message that is read


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Reason why a cell failed.

    Attributes:
        cell: its name.
        message: one line.
        details: the traceback, empty where there was none: a process that was killed leaves none.
        attempt: tells one failure of a cell from the next.
    """

    cell: str
    message: str
    details: str
    attempt: str


def failure_of(cell: str, error: BaseException) -> Failure:
    """Returns the failure of a cell that raised an exception."""
    # all its lines: no one sees the cell's process
    message = condensed(f"{type(error).__name__}: {error}")
    return Failure(
        cell=cell,
        message=message,
        details="".join(traceback.format_exception(error)),
        attempt=uuid.uuid4().hex,
    )


def failure(cell: str, message: str) -> Failure:
    """Returns a failure without an exception."""
    return Failure(cell=cell, message=message, details="", attempt=uuid.uuid4().hex)


def write_failure(out: Path, failed: Failure) -> None:
    """Writes a failure as JSON to the folder `failed`.

    Raises:
        CannotWrite: the folder cannot be written to.
    """
    make_folder(out / FAILED)
    write_json(_path(out, failed.cell), sealed(asdict(failed)))


def read_failure(out: Path, cell: str) -> Failure | None:
    """Reads the last failure of a cell; None where there is none that can be read."""
    try:
        content = read_json(_path(out, cell))
        kept = {name: str(content[name]) for name in ("message", "details", "attempt")}
    except (ValueError, KeyError):
        return None
    # one short line, whatever the file holds
    kept["message"] = " ".join(kept["message"].split())[:MAX_MESSAGE]
    return Failure(cell=cell, **kept) if is_intact(content) else None


def remove_failure(out: Path, cell: str) -> None:
    """Removes the failure of a cell that is done."""
    _path(out, cell).unlink(missing_ok=True)


def _path(out: Path, cell: str) -> Path:
    return out / FAILED / f"{cell}.json"
