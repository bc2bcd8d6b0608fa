"""What a finished cell leaves on disk. A record is there whole or not at all."""

import json
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from wobbliness.study.cell_plan import plan
from wobbliness.study.poisoning import ThreatModel
from wobbliness.study.recipes import Cleanse, Recipe, Universal, recipe_digest
from wobbliness.study.specs import (
    KINDS,
    SCHEMA_VERSION,
    Cell,
    CleanseSpec,
    NetworkSpec,
    Spec,
    UniversalSpec,
)

STUDY_FILE = "study.json"
_KIND_TYPES: dict[str, Any] = {kind: made for made, kind in KINDS.items()}
RECORDED_LIBRARIES = ("wobbliness", "torch", "numpy", "scipy", "scikit-learn", "datasets")


@dataclass(frozen=True, kw_only=True, eq=False)
class Record:
    """A finished cell.

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


@dataclass(frozen=True, kw_only=True)
class StudyStatus:
    """How much of a study is recorded."""

    recipe: str
    seed: int
    num_done: int
    num_cells: int
    left: tuple[str, ...]


def provenance(duration_seconds: float, threads: int) -> dict[str, Any]:
    """Library versions, device and duration of a cell."""
    return {
        "libraries": {name: version(name) for name in RECORDED_LIBRARIES},
        "python": platform.python_version(),
        "device": "cpu",
        "threads": threads,
        "duration_seconds": round(duration_seconds, 3),
    }


def write_record(folder: Path, cell: Cell, record: Record, *, recipe: Recipe) -> None:
    """Writes the table first and the JSON last; the cell is done once the JSON is there."""
    content = {
        "schema_version": SCHEMA_VERSION,
        "cell": cell.name,
        "recipe": recipe.name,
        "seed": recipe.seed,
        "spec": asdict(record.spec),
        "results": dict(record.results),
        "provenance": dict(record.provenance),
    }
    write_beside(folder / f"{cell.name}.parquet", lambda path: record.table.to_parquet(path, index=False))
    write_json(folder / f"{cell.name}.json", content)


def read_record(folder: Path, name: str) -> Record:
    """The record of a finished cell.

    Raises:
        ValueError: the record is missing, damaged, or of another schema.
    """
    content = read_json(folder / f"{name}.json")
    if content.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(f"expected a record of schema {SCHEMA_VERSION}, got {content.get('schema_version')} in {name}.json")
    try:
        table = pd.read_parquet(folder / f"{name}.parquet")
    except (OSError, ValueError) as error:
        raise ValueError(f"expected a readable table beside {name}.json, got {type(error).__name__}") from error
    try:
        spec, results, made = spec_from_json(name.partition("-")[0], content["spec"]), content["results"], content["provenance"]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"expected a whole record in {name}.json, got {type(error).__name__}: {error}") from error
    return Record(spec=spec, results=results, provenance=made, table=table)


def is_done(folder: Path, name: str) -> bool:
    """Whether the cell's record is there."""
    return (folder / f"{name}.json").is_file()


def study_status(recipe: Recipe, out: Path) -> StudyStatus:
    """How many of the recipe's cells have a record in the folder."""
    cells = plan(recipe)
    left = tuple(cell.name for cell in cells if not is_done(out / "records", cell.name))
    return StudyStatus(recipe=recipe.name, seed=recipe.seed, num_done=len(cells) - len(left), num_cells=len(cells), left=left)


def spec_from_json(kind: str, content: Mapping[str, Any]) -> Spec:
    """The spec that `asdict` had turned into plain values."""
    spec: Spec = _KIND_TYPES[kind](**{name: _spec_field(name, value) for name, value in content.items()})
    return spec


def _spec_field(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name == "threat":
        return ThreatModel(**value)
    if name == "network":
        return spec_from_json("train", value)
    if name == "crafted":
        return spec_from_json(KINDS[UniversalSpec if "norm" in value else CleanseSpec], value)
    return tuple(value) if isinstance(value, list) else value


def claim_folder(out: Path, recipe: Recipe) -> None:
    """Makes the output folder the recipe's own.

    Raises:
        ValueError: the folder holds another study, or files that are no study at all.
    """
    identity = {"recipe": recipe.name, "seed": recipe.seed, "digest": recipe_digest(recipe)}
    if (out / STUDY_FILE).is_file():
        found = read_json(out / STUDY_FILE)
        if {key: found.get(key) for key in identity} != identity:
            raise ValueError(
                f"expected a folder of recipe {recipe.name} with seed {recipe.seed}, got {out}, which belongs to "
                f"{found.get('recipe')} with seed {found.get('seed')}"
            )
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"expected a new or empty output folder, or one of this study, got {out}")
    (out / "records").mkdir(parents=True, exist_ok=True)
    for folder in ("networks", "perturbations"):
        (out / folder).mkdir(exist_ok=True)
    write_json(out / STUDY_FILE, {"schema_version": SCHEMA_VERSION, **identity, **asdict(recipe), "recipe": recipe.name})


def read_recipe(out: Path) -> Recipe:
    """The recipe that a study folder belongs to.

    Raises:
        ValueError: the folder holds no study, or one of another schema.
    """
    content = read_json(out / STUDY_FILE)
    if content.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(f"expected a study of schema {SCHEMA_VERSION}, got {content.get('schema_version')} in {out}")
    try:
        return Recipe(**{name: _field_from_json(name, content[name]) for name in Recipe.__dataclass_fields__})
    except (KeyError, TypeError) as error:
        raise ValueError(f"expected a whole study in {out / STUDY_FILE}, got {type(error).__name__}: {error}") from error


def _field_from_json(name: str, value: Any) -> Any:
    if name.endswith("networks"):
        return tuple(spec_from_json(KINDS[NetworkSpec], network) for network in value)
    if name == "universals":
        return tuple(Universal(**universal) for universal in value)
    if name == "cleanse":
        return value and Cleanse(**value)
    return tuple(value) if isinstance(value, list) else value


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
    except (OSError, ValueError) as error:
        raise ValueError(f"expected readable JSON in {path}, got {type(error).__name__}") from error
    if not isinstance(content, dict):
        raise ValueError(f"expected a JSON object in {path}, got {type(content).__name__}")
    return content


def write_beside(path: Path, write: Callable[[Path], object]) -> None:
    """Writes to a new file in the same folder and renames it, so that `path` is complete or absent."""
    beside = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        write(beside)
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
