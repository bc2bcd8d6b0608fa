"""Loops as machine code, for the few places where neither numpy nor torch has one pass for what is wanted."""

from collections.abc import Callable
from typing import Any

import numba

SAME_VALUES = frozenset({"contract", "nsz"})
"""Freedoms of the compiler that keep the order of sums: fused multiply-adds, and no care for the sign of zero."""

ANY_ORDER = SAME_VALUES | {"reassoc"}
"""Sums in any order as well: they fill vector registers, and differ in the last digits."""


def compiled(function: Callable[..., None], *, freedoms: frozenset[str]) -> Any:
    """Compiled for this processor, without Python's lock, and kept on disk where a folder can be written."""
    compiler: Any = numba.njit
    options = {"nogil": True, "fastmath": set(freedoms), "error_model": "numpy"}
    try:
        return compiler(cache=True, **options)(function)
    except RuntimeError:  # no folder for the cache
        return compiler(**options)(function)
