"""Folders that `save_to_disk` of `datasets` writes: Arrow files and a list of them."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wobbliness.images.columns import Columns
from wobbliness.images.tables import check_columns, reading_table
from wobbliness.runtime.errors import reason_of
from wobbliness.runtime.input_files import check_regular, read_bounded

MAX_JSON_BYTES = 16 * 2**20

_STATE, _SPLITS = "state.json", "dataset_dict.json"
# of the format's Message and RecordBatch
_HEADER_TYPE, _HEADER, _RECORD_BATCH, _COMPRESSION = 1, 2, 3, 3


def is_saved(folder: Path) -> bool:
    """Checks whether `save_to_disk` wrote this folder, of one split or of several."""
    return (folder / _STATE).is_file() or (folder / _SPLITS).is_file()


def saved_splits(folder: Path) -> dict[str, Path]:
    """Finds the folder of each split.

    Raises:
        ValueError: a list of splits is no such list, or names a folder elsewhere.
    """
    if not (folder / _SPLITS).is_file():
        return {str(_json(folder / _STATE).get("_split") or "train"): folder}
    names = _json(folder / _SPLITS).get("splits")
    if not isinstance(names, list) or not all(_is_plain(name) for name in names):
        raise ValueError(f"expected a list of splits in {folder / _SPLITS}, got {str(names)[:80]}")
    return {name: folder / name for name in names}


def saved_tables(folder: Path) -> list["ArrowTable"]:
    """Opens the tables of one split.

    Raises:
        ValueError: it lists files elsewhere, or one is damaged or compressed.
    """
    files = _json(folder / _STATE).get("_data_files")
    names = (
        [file.get("filename") if isinstance(file, dict) else None for file in files]
        if isinstance(files, list)
        else [None]
    )
    if not all(_is_plain(name) for name in names):
        raise ValueError(
            f"expected names of Arrow files in {folder / _STATE}, got {str(files)[:80]}"
        )
    return [ArrowTable(folder / str(name)) for name in names]


class ArrowTable:
    """A table in Arrow's streaming format, uncompressed: memory-mapped, as large as the file."""

    def __init__(self, path: Path) -> None:
        """Opens a table and counts its rows; ValueError for no regular file or a compressed one."""
        import pyarrow as pa

        check_regular(path)
        self._path = path
        with reading_table(str(path)):
            with pa.memory_map(str(path)) as source:
                _check_uncompressed(source, path)
            self.schema = self._stream().schema
            # The format states no number of rows: batches are counted, their columns not read.
            self.num_rows = sum(len(batch) for batch in self._stream())

    def check(self, columns: Columns) -> None:
        """Raises ValueError where a column is missing."""
        check_columns(self.schema, columns, self._path)

    def rows(self, columns: Columns) -> Iterator[Any]:
        """Yields batches of one row each."""
        for batch in self._stream():
            chosen = batch.select(columns.names)
            chosen.validate(full=True)  # a stranger's offsets may lead out of the file
            # Slices are views, so a row costs no copy.
            for row in range(len(chosen)):
                yield chosen.slice(row, 1)

    def _stream(self) -> Any:
        import pyarrow as pa

        return pa.ipc.open_stream(pa.memory_map(str(self._path)))


def _check_uncompressed(source: Any, path: Path) -> None:
    import pyarrow as pa

    for message in pa.ipc.MessageReader.open_stream(source):
        if _is_compressed(message.metadata.to_pybytes()):
            raise ValueError(
                f"expected Arrow files as save_to_disk writes them, got a compressed one, {path}"
            )


def _is_compressed(metadata: bytes) -> bool:
    """Checks whether the flatbuffer of a message's record batch states a compression.

    A flatbuffer's tables begin with a list of where their fields are.
    """
    try:
        # A buffer begins with the position of its outermost table.
        message = struct.unpack_from("<I", metadata)[0]
        kind = _field(metadata, message, _HEADER_TYPE)
        if kind is None or metadata[kind] != _RECORD_BATCH:
            return False
        header = _field(metadata, message, _HEADER)
        assert header is not None
        # The header is a table of its own; its field holds the distance to it.
        batch = header + struct.unpack_from("<I", metadata, header)[0]
        return _field(metadata, batch, _COMPRESSION) is not None
    except (struct.error, IndexError, AssertionError) as error:
        raise ValueError("expected a readable Arrow message, got another") from error


def _field(buffer: bytes, table: int, number: int) -> int | None:
    """Finds the position of a field in a flatbuffer table; None where it is absent."""
    # A table begins with the distance back to its list of fields; that begins with its own size and
    # the table's, two bytes each, followed by the offset of each field, 0 for an absent one.
    fields = table - struct.unpack_from("<i", buffer, table)[0]
    size = struct.unpack_from("<H", buffer, fields)[0]
    if 4 + 2 * number >= size:
        return None
    offset = struct.unpack_from("<H", buffer, fields + 4 + 2 * number)[0]
    return table + offset if offset else None


def _is_plain(name: Any) -> bool:
    # One name without a separator: a list must not lead out of its folder.
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set("/\\\0")


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_bounded(path, MAX_JSON_BYTES).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"expected a readable {path.name}, got {path}: {reason_of(error)}"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"expected a {path.name} of names and values, got {path}")
    return content
