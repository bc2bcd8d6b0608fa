"""Readers with planted faults, which benchmarks/fuzz_readers.py has to find, and one without."""

import os

from damages import Reader

CONTENT = b'{"width": 3, "height": 2}'


def _make(folder, _number):
    (folder / "x.json").write_bytes(CONTENT)


def _check(folder):
    if (folder / "x.json").read_bytes() != CONTENT:
        raise ValueError("expected what was written, got something else")


def _crash(folder):
    if (folder / "x.json").read_bytes() != CONTENT:
        raise KeyError("height")


def _die(folder):
    if (folder / "x.json").read_bytes()[:1] != CONTENT[:1]:
        os.abort()


def _allocate(folder):
    if (folder / "x.json").read_bytes() != CONTENT:
        bytearray(8 * 2**30)


def _leave(folder):
    if (folder / "x.json").read_bytes() != CONTENT:
        (folder.parent / "half").write_bytes(b"half")
        raise ValueError("expected what was written, got something else")


GOOD, CRASHING, DYING, ALLOCATING, LEAVING = (
    Reader(make=_make, read=read, num_samples=1)
    for read in (_check, _crash, _die, _allocate, _leave)
)
