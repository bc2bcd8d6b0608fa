"""Parquet tables of a study, read within bounds on their memory, since they may be untrusted.

A file of some kilobytes can hold a column of 10^9 values, or one text for each of 10^6 rows. Rows
and pages are counted first; the columns are numbers, and texts are held once each.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from wobbliness.images.image_set import check_expansion
from wobbliness.images.parquet_pages import pages
from wobbliness.runtime.files import MAX_JSON_BYTES, read_regular

MAX_TABLE_BYTES = 2**28  # stored
MAX_VALUES = 2 * 10**7  # of one table; the largest of the published studies has 34,000
MAX_STUDY_VALUES = 5 * 10**7
MAX_STUDY_ROWS = 3 * 10**6
MAX_TEXT_BYTES = 2**25  # of all records that are packed together
# the format's encodings of texts by their differences, which no version of ours writes
_GROWING_ENCODINGS = (6, 7)


class Budget:
    """Rows and values that a whole study may still have."""

    def __init__(self) -> None:
        self._rows, self._values = MAX_STUDY_ROWS, MAX_STUDY_VALUES

    def take(self, table: pd.DataFrame) -> None:
        """Takes the size of a table off the budget; raises ValueError where too little is left."""
        self._rows -= len(table)
        self._values -= table.size
        if min(self._rows, self._values) < 0:
            raise ValueError(
                f"expected a study of at most {MAX_STUDY_ROWS} rows and {MAX_STUDY_VALUES} values "
                "in all, got more"
            )


def table_of(content: bytes) -> pd.DataFrame:
    """Reads the table of a record, all of whose columns are numbers.

    Raises:
        ValueError: it holds something else, or more than MAX_VALUES.
        Exception: whatever pyarrow raises for what is no Parquet table.
    """
    return _read(content, texts=()).to_pandas(ignore_metadata=True, use_threads=False)


def packed_rows(path: Path) -> pd.DataFrame:
    """Reads the rows of several records: numbers, and the cell that each belongs to.

    Raises:
        ValueError, Exception: as for `table_of`.
    """
    table = _read(read_regular(path, MAX_TABLE_BYTES), texts=("cell",))
    if "cell" in table.column_names and any(
        len(str(name)) > 100 for name in _values(table.column("cell"))
    ):
        raise ValueError("a cell with a name of more than 100 characters")
    return table.to_pandas(ignore_metadata=True, use_threads=False).astype({"cell": object})


def packed_texts(path: Path) -> Iterator[tuple[Any, str]]:
    """Reads the cell and text of each packed record.

    Raises:
        ValueError, Exception: as for `table_of`, or the texts are too large in all.
    """
    table, left = (
        _read(read_regular(path, MAX_TABLE_BYTES), texts=("cell", "record")),
        MAX_TEXT_BYTES,
    )
    for batch in table.select(["cell", "record"]).to_batches():
        for cell, text in zip(batch.column(0), batch.column(1), strict=True):
            record = text.as_py() or ""
            left -= len(record)
            if len(record) > MAX_JSON_BYTES or left < 0:
                raise ValueError(
                    f"records of more than {MAX_JSON_BYTES} bytes, or {MAX_TEXT_BYTES} in all"
                )
            yield cell.as_py(), record


def _values(column: Any) -> list[Any]:
    """Returns the distinct values of a column that was read as a dictionary."""
    return [value for chunk in column.chunks for value in chunk.dictionary.to_pylist()]


def _read(content: bytes, *, texts: tuple[str, ...]) -> Any:
    """Reads an Arrow table within the bounds.

    Its columns are numbers, but for texts in the columns given.
    """
    import pyarrow.parquet as pq

    # first the footer alone: counts of rows and columns are known before any page is read
    stream = _Stream(content)
    file = pq.ParquetFile(stream, read_dictionary=list(texts))
    groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
    rows = sum(group.num_rows for group in groups)
    num_columns = max(1, len(file.schema_arrow))
    if min([0, *(group.num_rows for group in groups)]) < 0 or rows * num_columns > MAX_VALUES:
        raise ValueError(f"{rows} rows of {num_columns} columns, more than {MAX_VALUES} values")
    # eight bytes a value, compared with the size of the file
    check_expansion(8 * rows * num_columns, len(content), stream.name)
    if rows == 0:  # columns have whatever type then
        return file.schema_arrow.empty_table()
    _check_columns(file, texts)
    _check_pages(
        stream, [group.column(index) for group in groups for index in range(group.num_columns)]
    )
    return file.read(use_threads=False)


def _check_columns(file: Any, texts: tuple[str, ...]) -> None:
    import pyarrow as pa

    names = file.schema_arrow.names
    if len(set(names)) != len(names):
        raise ValueError("two columns of one name")
    for field in file.schema_arrow:
        kind, is_text = field.type, field.name in texts
        # texts are read as dictionaries: check the type of the distinct values
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        is_string = (
            pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)
        )
        is_number = (
            pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
        )
        if not (is_string if is_text else is_number):
            raise ValueError(
                f"a column of {str(kind)[:40]} where {'texts' if is_text else 'numbers'} belong"
            )


def _check_pages(stream: "_Stream", chunks: list[Any]) -> None:
    # the header of a page states its unpacked size: add them up before unpacking one
    left = 8 * MAX_VALUES
    for chunk in chunks:
        for page in pages(stream, chunk):
            left -= page.unpacked
            if page.encoding in _GROWING_ENCODINGS:
                raise ValueError(f"a page in encoding {page.encoding}")
            if left < 0:
                raise ValueError(f"pages that unpack to more than {8 * MAX_VALUES} bytes")


class _Stream(io.BytesIO):
    """Bytes that error messages describe as a file."""

    name, mode = "the table", "rb"
