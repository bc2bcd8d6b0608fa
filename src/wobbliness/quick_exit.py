"""Processes of our own that end at once."""

import atexit
import gc


def end_quickly() -> None:
    """Has this process end without looking through all its objects for garbage once more: up to 1.4 s where torch is loaded.

    Whatever is to be done at the end is done all the same; only objects that refer to each other are not taken apart.
    """
    atexit.register(_leave_objects_alone)


def _leave_objects_alone() -> None:
    gc.disable()
    gc.freeze()
