"""Archive of a study: its records in a few small files.

Its tables, figures and page can be formed from them again without training.
"""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd

from wobbliness.runtime.field_limits import shown
from wobbliness.runtime.files import (
    PACKING,
    UNPACKING,
    CannotWrite,
    check_study_folder,
    checksum,
    is_intact,
    move_into_place,
    parse_json,
    read_json,
    sealed,
    write_bytes,
    write_json,
)
from wobbliness.study.plan import plan
from wobbliness.study.records.bounded_tables import Budget, packed_rows, packed_texts
from wobbliness.study.records.locks import LOCKS, lock
from wobbliness.study.records.record import (
    STUDY_FILE,
    is_done,
    read_content,
    read_recipe,
    read_record,
    recorded_files,
)
from wobbliness.study.specs import spec_types

ROWS_AT_ONCE = 20_000  # of votes: some 300 kB, for version control likes small files
METADATA = "records.parquet"
_PART = re.compile(rf"(?:{'|'.join(spec_types())})-[0-9]{{3,6}}\.parquet")


def pack_study(out: Path, folder: Path) -> None:
    """Writes the records of a study folder to a few files of well under 1 MB.

    Networks and perturbations are left out. The files are written under temporary names and
    renamed: where the disk is full, a packed study that was there is still whole.

    Args:
        out: the study's folder.
        folder: new or empty, or a packed study, which is replaced.

    Raises:
        ValueError: `out` holds no study or a damaged record, or `folder` holds something else.
        CannotWrite: `folder` cannot be written to.
    """
    recipe = read_recipe(out)
    _check_target(folder)
    names = [cell.name for cell in plan(recipe) if is_done(out / "records", cell.name)]
    texts = [json.dumps(read_content(out / "records", name)) for name in names]
    parts = dict(_packed_parts(out, names))
    try:
        with _packing(folder) as staging:
            write_bytes(staging / METADATA, _bytes(pd.DataFrame({"cell": names, "record": texts})))
            for name, part in parts.items():
                write_bytes(staging / name, _bytes(part))
            write_json(staging / STUDY_FILE, read_json(out / STUDY_FILE))
    except OSError as error:
        raise CannotWrite(f"cannot write {folder}: {error.strerror or error}") from error


def unpack_study(folder: Path, out: Path) -> None:
    """Writes the study folder of a packed study.

    `wobbliness study report` then forms tables, figures and page. The folder is written under a
    temporary name and renamed: one whose writer was killed is unpacked again.

    Args:
        folder: a packed study.
        out: new or empty.

    Raises:
        ValueError: `folder` holds no packed study, or `out` is not empty.
        CannotWrite: `out` cannot be written to.
    """
    # a name that no cell of the recipe has is refused: it could be a path out of the folder
    known = {cell.name for cell in plan(read_recipe(folder))}
    try:
        leads_nowhere = out.is_symlink() and not out.exists()
        if leads_nowhere or (out.exists() and not (out.is_dir() and _is_available(out))):
            raise ValueError(f"expected a new or empty folder, got {out}")
        with _read_errors(folder):
            tables = _packed_tables(folder, known)
        with _unpacking(out) as staging, _read_errors(folder):
            for cell, table, content in _unpacked(folder, known, tables):
                write_bytes(staging / "records" / f"{cell}.parquet", table)
                write_json(staging / "records" / f"{cell}.json", content)
                # a report would refuse it, and the folder would be taken
                read_record(staging / "records", cell)
            write_json(staging / STUDY_FILE, read_json(folder / STUDY_FILE))
    except OSError as error:
        raise CannotWrite(f"cannot write {out}: {error.strerror or error}") from error


def _check_target(folder: Path) -> None:
    """Checks that packing overwrites nothing but a packed study, and follows no link."""
    check_study_folder(folder)
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    is_unfinished = PACKING in names and all(
        name in (PACKING, METADATA, LOCKS) or _PART.fullmatch(name) for name in names
    )
    is_other = bool(names) and not is_unfinished and not (folder / STUDY_FILE).is_file()
    if (folder / "records").exists() or is_other or (folder.exists() and not folder.is_dir()):
        raise ValueError(f"expected a new or empty folder, or a packed study, got {folder}")


def _packed_parts(out: Path, names: list[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    for kind in sorted({name.partition("-")[0] for name in names}):
        tables = [
            (name, read_record(out / "records", name).table)
            for name in names
            if name.startswith(f"{kind}-")
        ]
        rows = pd.concat(
            [table.assign(cell=name) for name, table in tables if len(table)] or [pd.DataFrame()],
            ignore_index=True,
        )
        for number, part in enumerate(_parts(rows)):
            yield f"{kind}-{number:03}.parquet", part


def _part_files(folder: Path) -> list[Path]:
    """Returns the tables that packing writes, and no others in the same folder."""
    return sorted(
        path for path in folder.iterdir() if path.name == METADATA or _PART.fullmatch(path.name)
    )


@contextmanager
def _packing(folder: Path) -> Iterator[Path]:
    """Yields a new folder inside another, whose files then replace the packed study there.

    Nothing is left where that fails.
    """
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    staging = folder / PACKING
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        yield staging
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        with suppress(OSError):
            for parent in made:
                parent.rmdir()
        raise
    # all new files are complete by now: remove what the earlier study had more, then rename
    names = {path.name for path in staging.iterdir()}
    for old in _part_files(folder):
        if old.name not in names:
            old.unlink()
    for new in sorted(
        staging.iterdir(), key=lambda path: path.name == STUDY_FILE
    ):  # the study's file last
        move_into_place(new, folder / new.name)
    staging.rmdir()


@contextmanager
def _read_errors(folder: Path) -> Iterator[None]:
    """Makes one line of what pandas and pyarrow raise for damaged tables: classes of their own."""
    try:
        yield
    except CannotWrite:
        raise
    except Exception as error:
        reason = str(error) if type(error) is ValueError else type(error).__name__
        raise ValueError(f"expected a packed study in {folder}, got {reason}") from error


def _is_available(out: Path) -> bool:
    """Checks whether a folder is empty, or holds what a killed unpacking left."""
    names = {path.name for path in out.iterdir()}
    return names <= {LOCKS} or (names <= {LOCKS, UNPACKING, "records"} and UNPACKING in names)


@contextmanager
def _unpacking(out: Path) -> Iterator[Path]:
    """Yields a new folder inside `out`, whose content in the end becomes that of `out`.

    Nothing is left where that fails. It is inside `out` because `out` may be the mount point of a
    disk.
    """
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    staging = out / UNPACKING
    out.mkdir(parents=True, exist_ok=True)
    check_study_folder(out)
    with lock(out, "unpack") as is_ours:
        if not is_ours:
            raise ValueError(f"expected a folder that no one else unpacks a study in, got {out}")
        try:
            for left in (out / "records", staging):
                shutil.rmtree(left, ignore_errors=True)
            (staging / "records").mkdir(parents=True)
            yield staging
            for name in ("records", STUDY_FILE):  # the study's file last: it makes a folder a study
                (staging / name).rename(out / name)
            staging.rmdir()
        except BaseException:
            for left in (out / "records", staging):
                shutil.rmtree(left, ignore_errors=True)
            _remove_made_folders(out, made)
            raise
        (out / LOCKS / "unpack.lock").unlink(missing_ok=True)


def _remove_made_folders(out: Path, made: list[Path]) -> None:
    """Removes the folders that were made, and the lock in them."""
    (out / LOCKS / "unpack.lock").unlink(missing_ok=True)
    with suppress(OSError):
        for folder in (out / LOCKS, *made):
            folder.rmdir()


def _packed_tables(folder: Path, known: set[str]) -> dict[str, pd.DataFrame]:
    """Returns the rows of each record.

    Nothing is written before all cells are known: a name may lead out of a folder.
    """
    left = set(known)
    for cell, _ in packed_texts(folder / METADATA):
        if cell not in known:
            raise ValueError(f"a record of {shown(cell)}, which is no cell of it")
        if cell not in left:
            raise ValueError(f"two records of {cell}")
        left.remove(cell)
    budget, tables = Budget(), dict[str, pd.DataFrame]()
    for path in _part_files(folder):
        if path.name != METADATA:
            rows = packed_rows(path)
            budget.take(rows)
            # cells are never split over parts: each key appears once
            tables |= dict(iter(rows.groupby("cell", sort=False)))
    return tables


def _unpacked(
    folder: Path, known: set[str], tables: dict[str, pd.DataFrame]
) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    """Yields the name, table and JSON of each record."""
    for cell, record in packed_texts(folder / METADATA):
        if cell not in known:  # the file was exchanged in the meantime
            raise ValueError(f"a record of {shown(cell)}, which is no cell of it")
        table = (
            tables.get(cell, pd.DataFrame())
            .drop(columns="cell", errors="ignore")
            .dropna(axis="columns", how="all")
        )
        content = _bytes(table)
        yield (
            cell,
            content,
            _resealed(cell, parse_json(record, f"the record of {cell}"), checksum(content)),
        )


def _resealed(cell: str, content: dict[str, Any], table: str) -> dict[str, Any]:
    """Returns a record with the checksum of its table as it is written now.

    So also a record of a study that was packed without checksums.
    """
    if not is_intact(content) or content.get("cell") != cell:
        raise ValueError(f"another record of {cell} than was packed")
    return sealed(
        content | {"files": {"table": table, "weights": recorded_files(content).get("weights")}}
    )


def _parts(rows: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Yields whole cells together, in parts of about ROWS_AT_ONCE rows."""
    part: list[pd.DataFrame] = []
    for _, of_cell in rows.groupby("cell", sort=False) if len(rows) else ():
        # a cell larger than a part gets a part of its own
        if part and sum(map(len, part)) + len(of_cell) > ROWS_AT_ONCE:
            yield pd.concat(part, ignore_index=True)
            part = []
        part.append(of_cell)
    if part:
        yield pd.concat(part, ignore_index=True)


def _bytes(table: pd.DataFrame) -> bytes:
    content: bytes = table.to_parquet(index=False, compression="zstd")
    return content
