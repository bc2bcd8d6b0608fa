"""Compilation of loops by Numba, where neither numpy nor torch has one pass for the task."""

from collections.abc import Callable
from typing import Any

import numba

SAME_ORDER = frozenset({"contract", "nsz"})
"""Fastmath flags that keep the order of sums: fused multiply-adds, and no signed zeros."""

ANY_ORDER = SAME_ORDER | {"reassoc"}
"""Fastmath flags that reassociate sums too: they fill vector registers, last digits differ."""


def compiled(function: Callable[..., None], *, fastmath: frozenset[str]) -> Any:
    """Compiles a function for this CPU, without the GIL, cached on disk where possible."""
    # As numpy divides: infinity and NaN where Python raises an error, without a branch for it.
    compiler: Any = numba.njit
    options = {"nogil": True, "fastmath": set(fastmath), "error_model": "numpy"}
    try:
        return compiler(cache=True, **options)(function)
    except RuntimeError:  # no folder for the cache
        return compiler(**options)(function)
