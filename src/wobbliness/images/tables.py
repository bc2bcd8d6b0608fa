"""Encoded pictures in Parquet files, as the Hugging Face hub stores them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wobbliness.errors import reason_of
from wobbliness.images.columns import Columns, Features, find_columns, labels_from
from wobbliness.images.fitting import Target
from wobbliness.images.image_set import ImageSet, check_expansion
from wobbliness.images.parquet_pages import unpacked_size
from wobbliness.images.stacking import Encoded, stack_pictures

_SPLIT_OF_SHARD = re.compile(r"(?P<split>.*?)-\d+-of-\d+.*\.parquet")


def read_parquet(path: Path, target: Target, *, column: str | None, label_column: str | None) -> ImageSet:
    """The pictures of a Parquet file, or of all such files of a folder in the order of their names.

    Pictures are read from the table only: a path in it is a name, and is never opened.

    Raises:
        ValueError: a file is damaged, has not the columns, or unpacks to far more than it stores; a folder holds several splits;
            or as for `stack_pictures`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        files = _files(path)
        tables = [pq.ParquetFile(file) for file in files]
        columns = find_columns(column_types(tables[0].schema_arrow), str(path), column=column, label_column=label_column)
        for file, table in zip(files, tables, strict=True):
            _check_columns(file, table, columns)
        num_rows = sum(table.metadata.num_rows for table in tables)
        rows = _Rows(tables, columns, path)
        images = stack_pictures(rows, num_rows, target, str(path))
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise ValueError(f"expected a table of pictures, got {path}: {reason_of(error)}") from error
    labels, class_names = labels_from(rows.labels, columns, str(path))
    return ImageSet(images=images, labels=labels, names=tuple(rows.names), class_names=class_names)


def column_types(schema: Any) -> Features:
    """Types of the columns: those that the hub's libraries wrote into the file, else by the Arrow types."""
    features: dict[str, Any] = {field.name: _feature(field.type) for field in schema}
    try:
        written = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return features | {name: feature for name, feature in written.items() if name in features}
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):  # absent, or not as the libraries write it
        return features


def parquet_files(folder: Path) -> list[Path]:
    """Parquet files of a folder, by name."""
    return sorted(path for path in folder.glob("*.parquet") if not path.name.startswith("."))


class _Rows:
    """Goes through the tables row by row, so that a value repeated a million times is held once; keeps names and labels."""

    def __init__(self, tables: list[Any], columns: Columns, path: Path) -> None:
        self._tables, self._columns, self._path = tables, columns, path
        self.names: list[str] = []
        self.labels: list[Any] = []

    def __iter__(self) -> Iterator[Encoded]:
        for row in self._cells():
            cell = row[self._columns.image]
            name, content = picture_cell(cell)
            name = name or str(len(self.names))
            if not isinstance(content, bytes):
                raise ValueError(
                    f"expected the bytes of a picture in each row of {self._path}, got none in row {len(self.names)}"
                )
            self.names.append(name)
            self.labels.append(row[self._columns.label] if self._columns.label else None)
            yield f"{self._path}: {name}", content

    def _cells(self) -> Iterator[dict[str, Any]]:
        for table in self._tables:
            for batch in table.iter_batches(batch_size=1, columns=self._columns.names, use_threads=False):
                yield from batch.to_pylist()


def picture_cell(cell: Any) -> tuple[str | None, Any]:
    """Path and bytes of a cell: a dictionary of both as the hub writes it, or the bytes alone."""
    return (cell.get("path"), cell.get("bytes")) if isinstance(cell, dict) else (None, cell)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    files = parquet_files(path)
    splits = {match["split"] for file in files if (match := _SPLIT_OF_SHARD.fullmatch(file.name))}
    if len(splits) > 1:
        raise ValueError(f"expected one split in {path}, got {', '.join(sorted(splits))}; choose one as hf:{path}[SPLIT]")
    return files


def _feature(kind: Any) -> dict[str, Any]:
    import pyarrow as pa

    is_binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    is_picture = is_binary or (pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0)
    return {"_type": "Image"} if is_picture else {"_type": "Value", "dtype": str(kind)}


def _check_columns(file: Path, table: Any, columns: Columns) -> None:
    """ValueError where a column is missing in one of several files, or a bomb."""
    missing = set(columns.names) - set(table.schema_arrow.names)
    if missing:
        raise ValueError(f"expected column {min(missing)} in {file}, got {', '.join(table.schema_arrow.names)}")
    groups = [table.metadata.row_group(index) for index in range(table.metadata.num_row_groups)]
    chunks = [group.column(index) for group in groups for index in range(group.num_columns)]
    with file.open("rb") as stream:
        for chunk in chunks:
            if chunk.path_in_schema.split(".")[0] in columns.names:
                stored = min(chunk.total_compressed_size, file.stat().st_size)
                check_expansion(unpacked_size(stream, chunk), stored, str(file))
