"""Pictures in Parquet tables as on the Hugging Face hub: encoded, or nested lists of numbers."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, runtime_checkable

import numpy as np

from wobbliness.images.array_axes import image_set_of
from wobbliness.images.columns import ARRAY, Columns, Features, find_columns, labels_from
from wobbliness.images.fitting import Target
from wobbliness.images.image_set import ImageSet, check_expansion, check_set_size
from wobbliness.images.parquet_pages import pages
from wobbliness.images.stacking import Encoded, stack_pictures
from wobbliness.runtime.errors import reason_of
from wobbliness.runtime.input_files import check_regular

SPLIT_OF_SHARD = re.compile(r"(?P<split>.*?)-\d+-of-\d+.*\.parquet", re.IGNORECASE)
MAX_NAME_LENGTH = 4096
MAX_SHOWN = 200  # characters of names in a message

_BATCH_ROWS, _BATCH_BYTES = 64, 64 * 2**20
_MAX_VALUE_BYTES = 8  # bytes that a number of a list takes at most while it is read


@runtime_checkable
class Table(Protocol):
    """A table whose rows are read one by one.

    Attributes:
        schema: names and Arrow types of its columns.
        num_rows: as it states.
    """

    schema: Any
    num_rows: int

    def check(self, columns: Columns) -> None:
        """Raises ValueError where a column is missing, or unpacks to far more than it stores."""
        ...

    def rows(self, columns: Columns) -> Iterator[Any]:
        """Yields batches of one row each."""
        ...


@dataclass(frozen=True, kw_only=True)
class RowRange:
    """The rows from `start` to before `stop` of a table; `stop` is None for all to the end."""

    table: Table
    start: int = 0
    stop: int | None = None

    def __len__(self) -> int:
        return (
            self.table.num_rows if self.stop is None else min(self.stop, self.table.num_rows)
        ) - self.start

    def rows(self, columns: Columns) -> Iterator[Any]:
        """Yields batches of one row each."""
        # Tables are read from their start; rows before the range are passed over.
        for row, batch in enumerate(self.table.rows(columns)):
            if self.stop is not None and row >= self.stop:
                return
            if row >= self.start:
                yield batch


def read_parquet(
    path: Path, target: Target, *, column: str | None, label_column: str | None
) -> ImageSet:
    """Reads the pictures of a Parquet file, or of all in a folder in the order of their names.

    Pictures are read from the table only: a path in it is a name, and is never opened.

    Raises:
        ValueError: a file is damaged, has not the columns, or unpacks to far more than it stores; a
            folder holds several splits; or as for `stack_pictures`.
    """
    with reading_table(str(path)):
        parts = [RowRange(table=ParquetTable(file)) for file in _files(path)]
    return read_rows(parts, target, str(path), column=column, label_column=label_column)


def read_rows(
    parts: Sequence[RowRange],
    target: Target,
    name: str,
    *,
    column: str | None,
    label_column: str | None,
    root: Path | None = None,
) -> ImageSet:
    """Reads the pictures in rows of tables that have the same columns.

    Args:
        parts: which rows.
        target: what the pictures are fitted to.
        name: of the source, for messages.
        column: the pictures', if named.
        label_column: the labels', if named.
        root: folder in which a table may name pictures by their paths; None where it may name none.

    Raises:
        ValueError: as for `read_parquet`.
    """
    with reading_table(name):
        columns = find_columns(
            column_types(parts[0].table.schema), name, column=column, label_column=label_column
        )
        for part in parts:
            part.table.check(columns)
        rows = _Rows(parts, columns, name, root)
        num_rows = sum(map(len, parts))
        if columns.holds_arrays:
            array = _stacked_arrays(rows, num_rows, name)
        else:
            images = stack_pictures(rows.encoded(), num_rows, target, name)
    labels, class_names = labels_from(rows.labels, columns, name)
    if columns.holds_arrays:
        # With any labels the first axis is known to count images.
        counted = labels if labels is not None else np.zeros(len(array), np.int64)
        images = image_set_of(array, counted, target, name).images
    return ImageSet(images=images, labels=labels, names=tuple(rows.names), class_names=class_names)


def column_types(schema: Any) -> Features:
    """Returns the columns' types as the hub's libraries wrote them, else the Arrow types.

    Raises:
        ValueError: two columns have one name.
    """
    if len(set(schema.names)) < len(schema.names):
        raise ValueError(
            "expected columns of different names, got "
            f"{', '.join(sorted(schema.names))[:MAX_SHOWN]}"
        )
    features: dict[str, Any] = {field.name: _feature(field.type) for field in schema}
    # Lists stay lists, whatever the metadata calls them: they are read as arrays.
    plain = {name for name, feature in features.items() if feature["_type"] != ARRAY}
    try:
        written = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return features | {name: kind for name, kind in written.items() if name in plain}
    # The metadata is absent, or not as the libraries write it.
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        return features


def parquet_files(folder: Path) -> list[Path]:
    """Finds the Parquet files of a folder, sorted by name."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() == ".parquet" and not path.name.startswith(".")
    )


class ParquetTable:
    """A table in a Parquet file."""

    def __init__(self, path: Path) -> None:
        """Opens the file; ValueError where it is no regular one."""
        import pyarrow.parquet as pq

        check_regular(path)
        self._path, self._file = path, pq.ParquetFile(path)
        self.schema, self.num_rows = self._file.schema_arrow, self._file.metadata.num_rows
        self._largest_page = 1

    def check(self, columns: Columns) -> None:
        """Raises ValueError where a column is missing, or unpacks to far more than it stores."""
        check_columns(self.schema, columns, self._path)
        metadata = self._file.metadata
        # Without rows a column need not have pages either.
        if metadata.num_rows < 1:
            raise ValueError(f"expected at least one picture, got none in {self._path}")
        groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
        chunks = [group.column(index) for group in groups for index in range(group.num_columns)]
        with self._path.open("rb") as stream:
            for chunk in chunks:
                if chunk.path_in_schema.split(".")[0] in columns.names:
                    self._check_chunk(stream, chunk, holds_arrays=columns.holds_arrays)

    def _check_chunk(self, stream: BinaryIO, chunk: Any, *, holds_arrays: bool) -> None:
        # A footer may claim anything: no column is larger than its file.
        stored = min(chunk.total_compressed_size, self._path.stat().st_size)
        unpacked = num_values = 0
        # Summed page by page: a file may hold as many empty pages as it has bytes.
        for page in pages(stream, chunk):
            unpacked += page.unpacked
            num_values += page.num_values
            self._largest_page = max(self._largest_page, page.unpacked)
        check_expansion(unpacked, stored, str(self._path))
        # In nested lists a run of equal numbers takes no bytes.
        if holds_arrays:
            check_expansion(num_values * _MAX_VALUE_BYTES, stored, str(self._path))

    def rows(self, columns: Columns) -> Iterator[Any]:
        """Yields batches of one row each.

        So few rows are read at a time that they are small even where each is a whole page.
        """
        batch_size = max(1, min(_BATCH_ROWS, _BATCH_BYTES // self._largest_page))
        # Without threads: they would unpack several batches ahead.
        for batch in self._file.iter_batches(
            batch_size=batch_size, columns=columns.names, use_threads=False
        ):
            for row in range(len(batch)):
                yield batch.slice(row, 1)


def check_columns(schema: Any, columns: Columns, path: Path) -> None:
    """Raises ValueError where a column is missing in one of several files."""
    missing = set(columns.names) - set(schema.names)
    if missing:
        raise ValueError(f"expected column {min(missing)} in {path}, got {', '.join(schema.names)}")


class _Rows:
    """An iterator over the rows of tables that keeps names and labels.

    Rows are read one by one, so that a value repeated a million times is held once.
    """

    def __init__(
        self, parts: Sequence[RowRange], columns: Columns, name: str, root: Path | None
    ) -> None:
        self._parts, self._columns, self._name, self._root = parts, columns, name, root
        self._texts: dict[str, str] = {}
        self.names: list[str] = []
        self.labels: list[Any] = []

    def encoded(self) -> Iterator[Encoded]:
        """Yields name and content of each picture."""
        for batch in self._batches():
            path, content = picture_cell(_column(batch, self._columns.image)[0].as_py())
            self._keep(batch, path)
            yield (
                f"{self._name}: {self.names[-1]}",
                content if isinstance(content, bytes) else self._file(path),
            )

    def arrays(self) -> Iterator[np.ndarray]:
        """Yields the numbers of each row."""
        for batch in self._batches():
            self._keep(batch, None)
            yield _array_of(
                _column(batch, self._columns.image), f"row {len(self.names) - 1} of {self._name}"
            )

    def _batches(self) -> Iterator[Any]:
        for part in self._parts:
            yield from part.rows(self._columns)

    def _keep(self, batch: Any, path: Any) -> None:
        # A path in a folder of the data set is shown by its last part alone.
        name = path if isinstance(path, str) and path else str(len(self.names))
        self.names.append(self._interned(os.path.basename(name) if self._root else name))
        label = _column(batch, self._columns.label)[0].as_py() if self._columns.label else None
        self.labels.append(self._interned(label) if isinstance(label, str) else label)

    def _interned(self, text: str) -> str:
        if len(text) > MAX_NAME_LENGTH:
            raise ValueError(
                f"expected names of at most {MAX_NAME_LENGTH} letters in {self._name}, got "
                f"{len(text)}"
            )
        # One object for equal texts, so that a million equal labels take the memory of one.
        return self._texts.setdefault(text, text)

    def _file(self, path: Any) -> Path:
        """Returns a picture file of the data set itself; a table may not name other files."""
        row = len(self.names) - 1
        if self._root is None:
            raise ValueError(
                f"expected the bytes of a picture in each row of {self._name}, got none in row "
                f"{row}"
            )
        root = self._root.resolve()
        file = (root / str(path or "")).resolve()
        if not path or not file.is_relative_to(root):
            raise ValueError(
                f"expected a picture within the data set, got {path or 'none'} in row {row} of "
                f"{self._name}"
            )
        return file


def picture_cell(cell: Any) -> tuple[Any, Any]:
    """Returns path and bytes of a cell: a dictionary of both as on the hub, or the bytes alone."""
    return (cell.get("path"), cell.get("bytes")) if isinstance(cell, dict) else (None, cell)


def _column(batch: Any, name: str) -> Any:
    column = batch.column(name)
    # of the arrays of `datasets`, which registers types of its own
    return getattr(column, "storage", column)


def _stacked_arrays(rows: _Rows, num_rows: int, name: str) -> np.ndarray:
    stacked: np.ndarray | None = None
    for row, image in enumerate(rows.arrays()):
        # Memory is taken with the first image, once it is known how large all will be.
        if stacked is None:
            check_set_size((num_rows, *image.shape), name)
            stacked = np.empty((num_rows, *image.shape), image.dtype)
        if row >= num_rows or image.shape != stacked.shape[1:]:
            raise ValueError(
                f"expected {num_rows} images of one shape in {name}, got {image.shape} in row {row}"
            )
        stacked[row] = image
    if stacked is None or len(rows.names) < num_rows:
        raise ValueError(
            f"expected {num_rows or 'at least one'} images in {name}, got {len(rows.names)}"
        )
    return stacked


def _array_of(column: Any, name: str) -> np.ndarray:
    """Converts the one row of a column of nested lists to an array.

    It raises ValueError where lists differ in length or numbers are missing.
    """
    # Each level of nesting is one axis, whose lists must all have the same length.
    shape, values = [], column
    while _is_list(values.type):
        if values.null_count or len(values) == 0:
            raise ValueError(f"expected numbers, got none in {name}")
        lengths = values.value_lengths().unique().to_pylist()
        if len(lengths) != 1:
            raise ValueError(f"expected lists of one length, got {lengths[:3]} in {name}")
        shape.append(lengths[0])
        values = values.flatten()
    if values.null_count:
        raise ValueError(f"expected numbers, got none in {name}")
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(shape)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    files = parquet_files(path)
    # Shards tell their split by their names: SPLIT-00000-of-00001.parquet.
    splits = {match["split"] for file in files if (match := SPLIT_OF_SHARD.fullmatch(file.name))}
    if len(splits) > 1:
        raise ValueError(
            f"expected one split in {path}, got {', '.join(sorted(splits))}; choose one as "
            f"hf:{path}[SPLIT]"
        )
    return files


def _feature(kind: Any) -> dict[str, Any]:
    import pyarrow as pa

    kind = getattr(kind, "storage_type", kind)
    is_binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    is_picture = is_binary or (pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0)
    number = kind
    while _is_list(number):
        number = number.value_type
    is_array = number is not kind and (pa.types.is_integer(number) or pa.types.is_floating(number))
    return (
        {"_type": "Image"}
        if is_picture
        else {"_type": ARRAY if is_array else "Value", "dtype": str(kind)}
    )


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


@contextmanager
def reading_table(name: str) -> Iterator[None]:
    """Converts any error of a damaged table to a ValueError of one line."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise ValueError(f"expected a table of pictures, got {name}: {reason_of(error)}") from error
