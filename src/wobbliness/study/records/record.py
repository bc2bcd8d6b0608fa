"""Record of a finished cell on disk, which is there whole or not at all."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from wobbliness.runtime.errors import cause_of
from wobbliness.runtime.field_limits import shown
from wobbliness.runtime.files import (
    SEAL,
    check_study_folder,
    checksum,
    is_intact,
    read_json,
    read_regular,
    sealed,
    write_bytes,
    write_json,
)
from wobbliness.study.identity import required_fields, written
from wobbliness.study.recipes import Recipe
from wobbliness.study.records.bounded_tables import MAX_TABLE_BYTES, table_of
from wobbliness.study.specs import (
    READ_SCHEMAS,
    SCHEMA_VERSION,
    Cell,
    Spec,
    cell_name,
    spec_types,
)
from wobbliness.study.typed_json import from_json

STUDY_FILE = "study.json"
_READABLE_SCHEMAS = " or ".join(map(str, READ_SCHEMAS))
RECORDED_LIBRARIES = ("wobbliness", "torch", "numpy", "scipy", "scikit-learn", "datasets")


@dataclass(frozen=True, kw_only=True, eq=False)
class Record:
    """Finished cell.

    Attributes:
        spec: what was done.
        results: what came out, for tables; numbers, strings or None.
        provenance: library versions, device, duration: never quoted in a table.
        table: rows of the cell: votes for a measurement, poisoned indices for a training.
    """

    spec: Spec
    results: Mapping[str, Any]
    provenance: Mapping[str, Any]
    table: pd.DataFrame


def provenance(duration_seconds: float, threads: int, device: str = "cpu") -> dict[str, Any]:
    """Returns library versions, device and duration of a cell."""
    return {
        "libraries": {name: version(name) for name in RECORDED_LIBRARIES},
        "python": platform.python_version(),
        "device": device,
        "threads": threads,
        "duration_seconds": round(duration_seconds, 3),
    }


def write_record(
    folder: Path, cell: Cell, record: Record, *, recipe: Recipe, weights: str | None = None
) -> None:
    """Writes the table first and the JSON last; the cell is done once the JSON is there.

    Args:
        folder: of the records.
        cell: what was done.
        record: what came out.
        recipe: the study's.
        weights: checksum of the network or perturbation that belongs to the record and is already
            in its file.
    """
    # `write_bytes` returns the checksum of what it wrote, which the JSON then holds
    table = write_bytes(folder / f"{cell.name}.parquet", record.table.to_parquet(index=False))
    content = {
        "schema_version": SCHEMA_VERSION,
        "cell": cell.name,
        "recipe": recipe.name,
        "seed": recipe.seed,
        "spec": written(record.spec),
        "results": dict(record.results),
        "provenance": dict(record.provenance),
        "files": {"table": table, "weights": weights},
    }
    write_json(folder / f"{cell.name}.json", sealed(content))


def read_record(folder: Path, name: str) -> Record:
    """Reads the record of a finished cell and verifies it by its checksums.

    One that was written without them is verified as far as it can be.

    Raises:
        ValueError: the record is missing, damaged, another cell's, or of another schema.
    """
    content = read_content(folder, name)
    spec = _spec_of(content, name)
    results, made = content.get("results"), content.get("provenance")
    if not (isinstance(results, dict) and isinstance(made, dict)):
        raise ValueError(
            f"expected a whole record in {name}.json, got results or provenance of another kind"
        )
    # spec, content and file name must agree: a copied or renamed record is refused
    if not cell_name(spec) == content.get("cell") == name:
        raise ValueError(
            f"expected the record of its own cell in {name}.json, got that of {cell_name(spec)}"
        )
    table = _read_table(folder, name, content)
    try:
        spec.check_record(results, table)
    except ValueError as error:
        raise ValueError(f"expected a whole record in {name}.json, got {error}") from error
    return Record(spec=spec, results=results, provenance=made, table=table)


def _spec_of(content: Mapping[str, Any], name: str) -> Spec:
    """Returns the spec of a record."""
    try:
        spec: Spec = from_json(spec_types()[name.partition("-")[0]], content["spec"])
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"expected a whole record in {name}.json, got {cause_of(error)}"
        ) from error
    return spec


def read_content(folder: Path, name: str) -> dict[str, Any]:
    """Reads the JSON of a record, intact as far as its checksum tells.

    Raises:
        ValueError: it is missing, damaged, or of another schema.
    """
    content = read_json(folder / f"{name}.json")
    if content.get("schema_version") not in READ_SCHEMAS:
        raise ValueError(
            f"expected a record of schema {_READABLE_SCHEMAS}, got "
            f"{shown(content.get('schema_version'))} in {name}.json"
        )
    if not is_intact(content) or (SEAL in content) != ("files" in content):
        raise ValueError(
            f"expected the content that was written in {name}.json, got another checksum"
        )
    return content


def recorded_files(content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the checksums of a record's table and weights.

    Empty where the record was written without, or says something else there.
    """
    files = content.get("files")
    return files if isinstance(files, dict) else {}


def _read_table(folder: Path, name: str, content: Mapping[str, Any]) -> pd.DataFrame:
    try:
        table = read_regular(folder / f"{name}.parquet", MAX_TABLE_BYTES)
        if "files" in content and checksum(table) != recorded_files(content).get("table"):
            raise ValueError("another checksum")
        return table_of(table)
    # pandas and pyarrow raise KeyError, TypeError and classes of their own for damaged tables
    except Exception as error:
        reason = str(error) if type(error) is ValueError else type(error).__name__
        raise ValueError(f"expected a readable table beside {name}.json, got {reason}") from error


def is_done(folder: Path, name: str) -> bool:
    """Checks whether the cell's record exists."""
    return (folder / f"{name}.json").is_file()


def read_recipe(out: Path) -> Recipe:
    """Reads the recipe that a study folder belongs to.

    Raises:
        ValueError: the folder holds no study, one of another schema or beyond the limits of a
            recipe, or a link.
    """
    check_study_folder(out)
    content = read_json(out / STUDY_FILE)
    if content.get("schema_version") not in READ_SCHEMAS:
        raise ValueError(
            f"expected a study of schema {_READABLE_SCHEMAS}, got "
            f"{shown(content.get('schema_version'))} in {out}"
        )
    if not is_intact(content):
        raise ValueError(
            f"expected the content that was written in {out / STUDY_FILE}, got another checksum"
        )
    try:
        return _recipe_of(content)
    except ValueError as error:
        raise ValueError(f"expected a whole study in {out / STUDY_FILE}, got {error}") from error


def _recipe_of(content: Mapping[str, Any]) -> Recipe:
    missing = [name for name in required_fields(Recipe) if name not in content]
    if missing:
        raise ValueError(f"no {', '.join(missing)}")
    known = {name: content[name] for name in Recipe.__dataclass_fields__ if name in content}
    try:
        return from_json(Recipe, known)
    except ValueError as error:
        raise ValueError(cause_of(error)) from error
