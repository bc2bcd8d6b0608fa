"""The unpacked size of a Parquet column by its page headers; a footer may claim anything."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from wobbliness.runtime.errors import cause_of

_UNPACKED, _STORED = 2, 3  # fields of the format's PageHeader
# Fields of PageHeader for each kind of page, and in each the field of the encoding.
_ENCODINGS = {5: 2, 7: 2, 8: 4}
_NUM_VALUES = 1  # field of a kind of page for its number of values
# Types of Thrift's compact protocol.
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _STRUCT = 1, 2, 3, 7, 8, 12
_INTEGERS = (4, 5, 6)
# What a damaged header leads to: bytes that end too early, fields that are missing or of another
# type, positions outside of the file, structures within each other without end.
_UNREADABLE = (
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    OSError,
    OverflowError,
    RecursionError,
)


@dataclass(frozen=True, kw_only=True)
class Page:
    """The header of a page.

    Attributes:
        unpacked: bytes that it unpacks to.
        encoding: its number, 0 where the header states none.
        num_values: of its values; a run of equal ones takes no bytes.
    """

    unpacked: int
    encoding: int
    num_values: int


def unpacked_size(stream: BinaryIO, chunk: Any) -> int:
    """Computes the bytes that all pages of a column chunk unpack to.

    Args:
        stream: the file.
        chunk: the chunk's metadata, for where it lies.

    Raises:
        ValueError: a page's header cannot be read, or leads out of the file.
    """
    return sum(page.unpacked for page in pages(stream, chunk))


def pages(stream: BinaryIO, chunk: Any) -> Iterator[Page]:
    """Reads all pages of a column chunk; raises as `unpacked_size` does."""
    offsets = [chunk.data_page_offset] + (
        [chunk.dictionary_page_offset] if chunk.has_dictionary_page else []
    )
    # A dictionary page, where there is one, comes before the pages of data.
    start = min(offset for offset in offsets if offset is not None)
    stop = start + chunk.total_compressed_size
    try:
        stream.seek(start)
        while stream.tell() < stop:
            header = _struct(stream)
            # A negative size would let the sum stay small or the stream go back for ever.
            if min(header[_UNPACKED], header[_STORED]) < 0:
                raise ValueError("a negative size")
            yield _page(header)
            stream.seek(header[_STORED], 1)
    except _UNREADABLE as error:
        raise ValueError(
            f"expected readable pages in {stream.name}, got {cause_of(error)}"
        ) from error


def _page(header: dict[int, Any]) -> Page:
    # The fields of whichever kind of page it is, and where in them the encoding stands.
    kinds = [
        (header[kind], field)
        for kind, field in _ENCODINGS.items()
        if isinstance(header.get(kind), dict)
    ]
    return Page(
        unpacked=header[_UNPACKED],
        encoding=max((fields.get(field, 0) for fields, field in kinds), default=0),
        num_values=sum(fields.get(_NUM_VALUES, 0) for fields, _ in kinds),
    )


def _struct(stream: BinaryIO) -> dict[int, Any]:
    """Reads the integers and inner structures of a structure, by field number; skips the rest."""
    fields: dict[int, Any] = {}
    number = 0
    while head := stream.read(1)[0]:
        # The upper four bits are the distance to the last field's number, 0 if the number follows.
        number = number + (head >> 4) if head >> 4 else _integer(stream)
        fields[number] = _value(stream, head & 15)
    return fields


def _value(stream: BinaryIO, kind: int) -> Any:
    if kind in _INTEGERS:
        return _integer(stream)
    if kind == _STRUCT:
        return _struct(stream)
    if kind in (_BYTE, _DOUBLE, _BINARY):
        # A binary field states its length first.
        stream.seek({_BYTE: 1, _DOUBLE: 8}.get(kind) or _natural(stream), 1)
    # A boolean is its type alone, without a byte of its own.
    elif kind not in (_TRUE, _FALSE):
        raise ValueError(f"a field of type {kind}")
    return 0


def _integer(stream: BinaryIO) -> int:
    # Zigzag code: 0, -1, 1, -2 ... are stored as 0, 1, 2, 3 ...
    zigzag = _natural(stream)
    return zigzag >> 1 if zigzag % 2 == 0 else -(zigzag + 1 >> 1)


def _natural(stream: BinaryIO) -> int:
    """Reads an integer in groups of seven bits, lowest first; at most ten groups, for 64 bits."""
    value = 0
    for shift in range(0, 70, 7):
        byte = stream.read(1)[0]
        # The eighth bit says whether another group follows.
        value |= (byte & 127) << shift
        if byte < 128:
            return value
    raise ValueError("a number of more than 64 bits")
