"""Progress bars that appear when work takes longer than two seconds and a person is watching."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from wobbliness.runtime.terminal import console, say, visible

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

# Before a bar appears; shorter work needs none.
PATIENCE_SECONDS = 2.0

Advance = Callable[[int], None]
"""Called with the number of steps just done."""

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""

Notice = Callable[[str], None]
"""Called with one line about something odd that was dealt with."""


def print_notice(line: str) -> None:
    """Prints a Notice on standard error."""
    say(f"note: {line}", error=True)


def ignore_progress(*_: object) -> None:
    """Ignores a Progress."""


def progress_of_parts(sizes: Sequence[int], progress: Progress | None) -> list[Progress | None]:
    """Returns the progress of each part of some work, told as that of the whole.

    Args:
        sizes: steps of each part.
        progress: of the whole; None where nobody is told.
    """
    total = sum(sizes)

    def shifted(before: int) -> Progress | None:
        return None if progress is None else lambda done, _: progress(before + done, total)

    return [shifted(sum(sizes[:place])) for place in range(len(sizes))]


@contextmanager
def progress_bar(
    description: str, total: int, *, report: Progress | None = None
) -> Iterator[Advance]:
    """Yields a function that takes steps done, and calls `report` or draws a bar.

    The bar appears on the terminal once two seconds have passed.
    """
    bar: RichProgress | None = None
    started, done = time.monotonic(), 0

    def advance(steps: int) -> None:
        nonlocal bar, done
        done += steps
        if report is not None:
            report(done, total)
        # Short work shows no bar.
        elif bar is None and sys.stderr.isatty() and time.monotonic() - started > PATIENCE_SECONDS:
            bar = open_progress()
            bar.add_task(visible(description), total=total)
            bar.start()
        if bar is not None:
            bar.update(bar.task_ids[0], completed=done)

    try:
        yield advance
    finally:
        if bar is not None:
            bar.stop()


def open_progress() -> "RichProgress":
    """Makes a rich progress display on standard error with time left, not yet started."""
    # Here, since importing rich takes time and few commands draw a bar.
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console(error=True),
    )
