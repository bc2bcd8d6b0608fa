"""Memory between two cells of one process."""

import contextlib
import ctypes


def give_back_freed_memory() -> None:
    """Has glibc's allocator return to the system what is free; others do so unasked, or cannot be asked.

    Blocks of many sizes leave holes in the heap. Unasked it returns none below the highest block in use, and what cells of
    different kinds leave behind would add up.
    """
    with contextlib.suppress(OSError, TypeError, AttributeError):  # another C library, or one that cannot be looked into
        ctypes.CDLL(None).malloc_trim(0)
