"""Integrity of a cell: its record verified, and its weights where another cell needs them."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from wobbliness.runtime.errors import reason_of
from wobbliness.runtime.files import (
    CHECKPOINTS,
    DAMAGED,
    file_checksum,
    remove_unfinished,
    set_aside,
    unfinished_name,
)
from wobbliness.runtime.progress import Notice
from wobbliness.study.records.record import is_done, read_content, read_record, recorded_files
from wobbliness.study.specs import Cell, cell_name, is_cell_name, spec_types

CELL_FOLDERS = ("records", "networks", "perturbations", CHECKPOINTS, "failed")
CELL_ENDINGS = (".json", ".parquet", ".safetensors")


@dataclass(frozen=True, kw_only=True)
class Integrity:
    """Integrity of a cell's files.

    Attributes:
        is_done: its record is whole, and so are its weights where they were asked for.
        damaged: files that are not what was written.
        reason: what is wrong with them, in one line; None where nothing is.
    """

    is_done: bool
    damaged: tuple[Path, ...] = ()
    reason: str | None = None


def check_integrity(out: Path, name: str, *, with_weights: bool = False) -> Integrity:
    """Verifies the files of a cell and changes nothing.

    Args:
        out: the study's folder.
        name: the cell's.
        with_weights: whether its network or perturbation is needed; packed studies have none.
    """
    if not is_done(out / "records", name):
        return Integrity(is_done=False)
    try:
        read_record(out / "records", name)
    except ValueError as error:
        files = (out / "records" / f"{name}.json", out / "records" / f"{name}.parquet")
        return Integrity(
            is_done=False, damaged=tuple(path for path in files if path.exists()), reason=str(error)
        )
    if not with_weights:
        return Integrity(is_done=True)
    path = weights_file(out, name)
    if not path.is_file():
        return Integrity(is_done=False)
    try:
        verified_weights(out, name)
    except ValueError as error:
        return Integrity(is_done=False, damaged=(path,), reason=str(error))
    return Integrity(is_done=True)


def cells_left(out: Path, cells: Sequence[Cell]) -> dict[str, bool]:
    """Returns the names of the cells that have to be done, in the order of `cells`.

    Each with whether its weights are needed.

    Weights that are gone are made again only for a cell that is itself to be done.
    """
    left: dict[str, bool] = {}
    needed: set[str] = set()
    # backwards, users before what they need: only a cell still to be done needs weights
    for cell in reversed(cells):
        if not check_integrity(out, cell.name, with_weights=cell.name in needed).is_done:
            left[cell.name] = cell.name in needed
            needed |= needs_of(cell)
    return dict(reversed(left.items()))


def needs_of(cell: Cell) -> set[str]:
    """Returns the names of all cells whose weights a cell reads."""
    return {cell_name(spec) for spec in cell.spec.needs}


def set_aside_damaged(out: Path, found: Integrity, notice: Notice) -> None:
    """Moves damaged files out of the way and reports them in one line.

    The caller holds the cell's lock.
    """
    for path in found.damaged:
        set_aside(out, path)
    if found.damaged:
        names = " and ".join(str(path.relative_to(out)) for path in found.damaged)
        notice(f"{names} set aside in {DAMAGED}/ and done again: {found.reason}")


def remove_unfinished_files(out: Path, name: str) -> None:
    """Removes unfinished files of killed writers of a cell.

    The caller holds the cell's lock.
    """
    for folder in CELL_FOLDERS:
        remove_unfinished(out / folder, [f"{name}{ending}" for ending in CELL_ENDINGS])


def remove_unfinished_of(out: Path, process: int) -> None:
    """Removes unfinished files of cells that one dead process left in the folder."""
    for folder in CELL_FOLDERS:
        for path in (out / folder).glob(f".{process}-*"):
            name = unfinished_name(path.name) or ""
            # a folder may hold a user's own files that merely look similar
            if path.suffix in CELL_ENDINGS and is_cell_name(name.removesuffix(path.suffix)):
                with suppress(OSError):
                    path.unlink()


def remove_stale_checkpoints(out: Path) -> None:
    """Removes checkpoints of trainings that are recorded.

    A runner that was killed between the two leaves them.
    """
    for path in (out / CHECKPOINTS).glob("*.safetensors"):
        if not path.name.startswith(".") and is_done(out / "records", path.stem):
            path.unlink(missing_ok=True)


def weights_file(out: Path, name: str) -> Path:
    """Returns the path of the network or the perturbation of a cell."""
    spec = spec_types().get(name.partition("-")[0])
    folder = None if spec is None else spec.weights_folder
    return out / (folder or "networks") / f"{name}.safetensors"


def recorded_weights(out: Path, name: str) -> str | None:
    """Returns the checksum of a cell's weights from its record.

    None where the record is damaged or was written without.
    """
    try:
        checksum: str | None = recorded_files(read_content(out / "records", name)).get("weights")
    except ValueError:
        return None
    return checksum


def verified_weights(out: Path, name: str) -> Path:
    """Returns the path of a cell's weights, after their checksum was verified.

    Weights without a checksum are only checked to be whole.

    Raises:
        ValueError: it is missing or damaged.
    """
    path, recorded = weights_file(out, name), recorded_weights(out, name)
    try:
        # records of earlier versions have no checksum of their weights
        if recorded is not None and file_checksum(path) != recorded:
            raise ValueError(
                f"expected the weights of its record in {path.name}, got another checksum"
            )
        # without a checksum a header that opens has to do
        with safe_open(path, framework="np"):
            return path
    except FileNotFoundError:
        raise ValueError(f"expected a file of weights {path}, which does not exist") from None
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"expected whole weights in {path.name}, got {reason_of(error)}"
        ) from error
