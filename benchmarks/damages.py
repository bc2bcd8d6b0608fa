"""Damages to bytes, and to what JSON, archives, safetensors and ONNX files say.

Each is determined by a generator. Damages to meaning leave a file that is well formed otherwise, so
that readers get further than to its first bytes.
"""

import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

Sample = dict[str, bytes]
"""Files of a folder by name, with what is in them."""

MOST_DAMAGES = 4  # of one file
DEEP = "@deep"  # stands for a value that is nested deeper than Python's own stack
VALUES = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        7,
        2**31,
        2**40,
        2**63,
        -(2**63),
        10**400,
        10**5000,
        0.5,
        1e308,
        float("nan"),
        float("inf"),
    ),
    *(
        "",
        "x",
        "1",
        "../../x",
        "a\0b",
        "\ud800",
        "é" * 300,
        "nan",
        [],
        {},
        [[]],
        [1, "x"],
        {"x": 1},
        [None] * 3,
        DEEP,
    ),
)
NUMBERS = (
    0,
    1,
    -1,
    2**7,
    2**15,
    2**16,
    2**31 - 1,
    -(2**31),
    2**31,
    2**32 - 1,
    2**40,
    2**62,
    2**63 - 1,
    -(2**63),
)
PNG_START = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Something that reads files.

    Attributes:
        make: writes valid files into a folder; called once for each of the numbers 0, 1, ....
        read: reads them from a folder.
        num_samples: how many different valid sets of files there are.
        repaired: makes the checksums in damaged files right again, as an attacker would.
    """

    make: Callable[[Path, int], object]
    read: Callable[[Path], object]
    num_samples: int = 2
    repaired: Callable[[Sample], Sample] | None = None


def damage(rng: random.Random, name: str, content: bytes, other: bytes) -> bytes:
    """Returns the content with one or several damages.

    `other` is another file of the same kind, to be spliced in.
    """
    by_meaning = next(
        (change for ending, change in BY_MEANING.items() if name.endswith(ending)), None
    )
    for _ in range(rng.randint(1, MOST_DAMAGES)):
        if by_meaning is not None and rng.random() < 0.6:
            try:
                content = by_meaning(rng, content)
                continue
            except Exception:  # an earlier damage left nothing that has a meaning
                pass
        content = rng.choice(TO_BYTES)(rng, content, other)
    return content


def change_json(rng: random.Random, content: Any) -> Any:
    """One value of a document replaced by one of another type or size, doubled or removed."""
    places = list(_places(content))
    if not places or rng.random() < 0.02:
        return rng.choice(VALUES)
    container, key = rng.choice(places)
    action = rng.random()
    if action < 0.2:
        del container[key]
    elif action < 0.3 and isinstance(container, list):
        container.extend(container * rng.randint(1, 50))
    elif action < 0.4 and isinstance(container, dict):
        container[str(rng.choice(VALUES))] = container.pop(key)
    elif action < 0.5:
        container[key] = rng.choice(places)[0] if rng.random() < 0.1 else [container[key]]
    elif action < 0.7 and isinstance(container[key], str) and container[key][:1] in ("{", "["):
        container[key] = json_text(change_json(rng, json.loads(container[key])))
    else:
        container[key] = rng.choice(VALUES)
    return content


def json_text(content: Any) -> str:
    """As JSON, also of what strict JSON has no words for."""
    try:
        text = json.dumps(content)
    except ValueError:  # a number of too many digits, or a document that holds itself
        return "1" * 5000
    return text.replace(f'"{DEEP}"', "[" * 10_000 + "]" * 10_000)


def with_png_checksums(content: bytes) -> bytes:
    """A PNG whose chunks' checksums are those of their content, as far as there are chunks."""
    if not content.startswith(PNG_START):
        return content
    parts, position = [PNG_START], len(PNG_START)
    while position + 12 <= len(content):
        length = min(
            int.from_bytes(content[position : position + 4], "big"), len(content) - position - 12
        )
        body = content[position + 4 : position + 8 + length]
        parts += [content[position : position + 4], body, zlib.crc32(body).to_bytes(4, "big")]
        position += 12 + length
    return b"".join(parts) + content[position:]


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a document, with each key in it."""
    keys = (
        list(content)
        if isinstance(content, dict)
        else range(len(content))
        if isinstance(content, list)
        else ()
    )
    for key in keys:
        yield content, key
        yield from _places(content[key])


def _place(rng: random.Random, content: bytes) -> int:
    """A position; headers and footers are hit more often."""
    near = rng.randrange(64)
    return min(
        max(0, rng.choice((near, len(content) - 1 - near, rng.randrange(len(content) + 1)))),
        len(content),
    )


def _flip_bits(rng: random.Random, content: bytes, _: bytes) -> bytes:
    changed = bytearray(content or b"\0")
    for _ in range(rng.randint(1, 8)):
        changed[_place(rng, content) % len(changed)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _overwrite(rng: random.Random, content: bytes, _: bytes) -> bytes:
    start, length = _place(rng, content), rng.choice((1, 2, 4, 8, 100))
    filling = rng.choice((b"\0" * length, b"\xff" * length, rng.randbytes(length)))
    return content[:start] + filling + content[start + length :]


def _remove(rng: random.Random, content: bytes, _: bytes) -> bytes:
    start = _place(rng, content)
    return content[:start] + content[start + rng.choice((1, 2, 4, 8, 100, len(content) // 2)) :]


def _repeat(rng: random.Random, content: bytes, _: bytes) -> bytes:
    start, length = _place(rng, content), rng.choice((1, 4, 8, 100))
    return (
        content[:start]
        + content[start : start + length] * rng.randint(2, 20)
        + content[start + length :]
    )


def _insert(rng: random.Random, content: bytes, _: bytes) -> bytes:
    start = _place(rng, content)
    return content[:start] + rng.randbytes(rng.choice((1, 2, 4, 8, 100))) + content[start:]


def _cut(rng: random.Random, content: bytes, _: bytes) -> bytes:
    return content[: _place(rng, content)]


def _splice(rng: random.Random, content: bytes, other: bytes) -> bytes:
    return content[: _place(rng, content)] + other[_place(rng, other) :]


def _number(rng: random.Random, content: bytes, _: bytes) -> bytes:
    """A number as length fields have it, of 2, 4 or 8 bytes in either order."""
    start, form = _place(rng, content), rng.choice("hiq")
    bits = 8 * struct.calcsize(form)
    number = (rng.choice(NUMBERS) + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)
    return (
        content[:start]
        + struct.pack(rng.choice("<>") + form, number)
        + content[start + bits // 8 :]
    )


def _change_text(rng: random.Random, content: bytes) -> bytes:
    return json_text(change_json(rng, json.loads(content))).encode()


def _change_safetensors(rng: random.Random, content: bytes) -> bytes:
    length = int.from_bytes(content[:8], "little")
    header = _change_text(rng, content[8 : 8 + length])
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def _change_member(rng: random.Random, content: bytes) -> bytes:
    """A zip archive with one of its files damaged and all checksums right."""
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(changed, "w") as copy:
        chosen = rng.choice(archive.infolist())
        for info in archive.infolist():
            member = archive.read(info)
            copy.writestr(
                info, damage(rng, info.filename, member, member) if info is chosen else member
            )
    return changed.getvalue()


def _change_graph(rng: random.Random, content: bytes) -> bytes:
    """An ONNX file with one field of one message changed, doubled or removed."""
    model = onnx.load_model_from_string(content)
    message, field, value = rng.choice(list(_fields(model)))
    if rng.random() < 0.2:
        message.ClearField(field.name)
    elif field.type in (field.TYPE_MESSAGE, field.TYPE_BYTES, field.TYPE_FLOAT):
        if field.type == field.TYPE_MESSAGE and hasattr(value, "extend"):
            value.extend(list(value) * rng.randint(1, 3))
    else:
        new = (
            rng.choice(("", "x", "y", "../x", "Loop"))
            if field.type == field.TYPE_STRING
            else rng.choice(NUMBERS)
        )
        new = (
            new % 50
            if field.type == field.TYPE_ENUM
            else new
            if isinstance(new, str)
            else _as_signed(new, field)
        )
        if hasattr(value, "extend"):
            value[rng.randrange(len(value))] = new
        else:
            setattr(message, field.name, new)
    return bytes(model.SerializeToString())


def _as_signed(number: int, field: Any) -> int:
    bits = 32 if field.type == field.TYPE_INT32 else 64
    return (number + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)


def _fields(message: Any) -> Iterator[tuple[Any, Any, Any]]:
    for field, value in message.ListFields():
        yield message, field, value
        if field.type == field.TYPE_MESSAGE:
            for part in value if hasattr(value, "extend") else [value]:
                yield from _fields(part)


TO_BYTES: tuple[Callable[[random.Random, bytes, bytes], bytes], ...] = (
    *(_flip_bits, _overwrite, _remove, _repeat, _insert, _cut, _splice, _number),
)
BY_MEANING: dict[str, Callable[[random.Random, bytes], bytes]] = {
    ".json": _change_text,
    ".safetensors": _change_safetensors,
    ".npz": _change_member,
    ".pt2": _change_member,
    ".onnx": _change_graph,
}
