"""A study's records in a few small files, from which its tables, figures and page can be formed again without training."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from wobbliness.study.cell_plan import plan
from wobbliness.study.files import checksum, is_intact, read_json, sealed, write_bytes, write_json
from wobbliness.study.records import STUDY_FILE, is_done, read_content, read_recipe, read_record, recorded_files

ROWS_AT_ONCE = 20_000  # of votes: some 300 kB, for version control likes small files
METADATA = "records.parquet"


def pack_study(out: Path, folder: Path) -> None:
    """Writes the records of a study folder, without networks and perturbations, to a few files of well under 1 MB.

    Args:
        out: the study's folder.
        folder: new or empty, or a packed study, which is replaced.

    Raises:
        ValueError: `out` holds no study or a damaged record, or `folder` holds something else.
    """
    recipe = read_recipe(out)
    if folder.exists() and any(folder.iterdir()) and not (folder / STUDY_FILE).is_file():
        raise ValueError(f"expected a new or empty folder, or a packed study, got {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.parquet"):
        old.unlink()
    names = [cell.name for cell in plan(recipe) if is_done(out / "records", cell.name)]
    texts = [json.dumps(read_content(out / "records", name)) for name in names]
    write_bytes(folder / METADATA, _bytes(pd.DataFrame({"cell": names, "record": texts})))
    for kind in sorted({name.partition("-")[0] for name in names}):
        tables = [(name, read_record(out / "records", name).table) for name in names if name.startswith(f"{kind}-")]
        rows = pd.concat([table.assign(cell=name) for name, table in tables if len(table)] or [pd.DataFrame()], ignore_index=True)
        for number, part in enumerate(_parts(rows)):
            write_bytes(folder / f"{kind}-{number:03}.parquet", _bytes(part))
    write_json(folder / STUDY_FILE, read_json(out / STUDY_FILE))


def unpack_study(folder: Path, out: Path) -> None:
    """Makes a study folder out of a packed study; `wobbliness study report` then forms tables, figures and page.

    Args:
        folder: a packed study.
        out: new or empty.

    Raises:
        ValueError: `folder` holds no packed study, or `out` is not empty.
    """
    known = {cell.name for cell in plan(read_recipe(folder))}
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"expected a new or empty folder, got {out}")
    try:
        records = list(_unpacked(folder, known))
    except Exception as error:  # pandas and pyarrow raise classes of their own for damaged tables
        reason = str(error) if type(error) is ValueError else type(error).__name__
        raise ValueError(f"expected a packed study in {folder}, got {reason}") from error
    (out / "records").mkdir(parents=True)
    for cell, table, content in records:
        write_bytes(out / "records" / f"{cell}.parquet", table)
        write_json(out / "records" / f"{cell}.json", content)
    write_json(out / STUDY_FILE, read_json(folder / STUDY_FILE))


def _unpacked(folder: Path, known: set[str]) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    """Name, table and JSON of each record. Nothing is written before all are formed: a name may lead out of a folder."""
    metadata = pd.read_parquet(folder / METADATA)
    parts = [pd.read_parquet(path) for path in sorted(folder.glob("*-*.parquet"))]
    tables = {cell: rows for part in parts for cell, rows in part.groupby("cell", sort=False)}
    for cell, record in metadata.itertuples(index=False):
        if cell not in known:
            raise ValueError(f"a record of {cell!r}, which is no cell of it")
        table = tables.get(cell, pd.DataFrame()).drop(columns="cell", errors="ignore").dropna(axis="columns", how="all")
        content = _bytes(table)
        yield cell, content, _sealed_again(cell, json.loads(record), checksum(content))


def _sealed_again(cell: str, content: dict[str, Any], table: str) -> dict[str, Any]:
    """A record with the checksum of its table as it is written now; one of a study packed without checksums gets them here."""
    if not is_intact(content) or content.get("cell") != cell:
        raise ValueError(f"another record of {cell} than was packed")
    return sealed(content | {"files": {"table": table, "weights": recorded_files(content).get("weights")}})


def _parts(rows: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Whole cells together, in parts of about ROWS_AT_ONCE rows."""
    part: list[pd.DataFrame] = []
    for _, of_cell in rows.groupby("cell", sort=False) if len(rows) else ():
        if part and sum(map(len, part)) + len(of_cell) > ROWS_AT_ONCE:
            yield pd.concat(part, ignore_index=True)
            part = []
        part.append(of_cell)
    if part:
        yield pd.concat(part, ignore_index=True)


def _bytes(table: pd.DataFrame) -> bytes:
    content: bytes = table.to_parquet(index=False, compression="zstd")
    return content
