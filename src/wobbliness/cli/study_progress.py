"""Progress of a study on a terminal: bars while it is running, a summary from anywhere else."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.live import Live
from rich.text import Text

from wobbliness.runtime.progress import Notice, open_progress
from wobbliness.runtime.terminal import console, visible
from wobbliness.study.records.record import read_recipe
from wobbliness.study.running.engine import CellProgress
from wobbliness.study.running.status import StudyStatus, study_status

WATCH_SECONDS = 2.0


@contextmanager
def cell_progress() -> Iterator[tuple[CellProgress, Notice]]:
    """Yields functions that show a bar for each running cell, and notices.

    Bars are for terminals only: elsewhere a line per finished cell would be noise. Notices are
    always shown.
    """
    bar, tasks = open_progress(), dict[str, Any]()
    bar.disable = not sys.stderr.isatty()

    def report(name: str, done: int, total: int) -> None:
        if name not in tasks:
            tasks[name] = bar.add_task(visible(name), total=total)
        # A finished cell's bar disappears.
        bar.update(tasks[name], completed=done, total=total, visible=done < total)

    def notice(line: str) -> None:
        bar.console.print(visible(f"note: {line}"), soft_wrap=True)

    with bar:  # closed by an error, too: a bar left open would hide the cursor
        yield report, notice


def status_lines(found: StudyStatus) -> list[str]:
    """Returns counts and time left, then a line for each running and each failed cell."""
    counts = f"{found.num_done} of {found.num_cells} cells done"
    parts = {"running": len(found.running), "failed": len(found.failed), "left": len(found.left)}
    counts = ", ".join([counts, *(f"{number} {what}" for what, number in parts.items() if number)])
    lines = [f"{found.recipe}, seed {found.seed}: {counts}{_time_left(found)}"]
    lines += [
        f"running: {running.cell}, for {_duration(running.seconds)}" for running in found.running
    ]
    lines += [f"failed: {failed.cell}: {failed.message}" for failed in found.failed]
    return lines


def watch_status(out: Path) -> None:
    """Shows the status again and again until every cell is done or Ctrl-C is pressed."""
    # Before the screen is taken: an error of the folder is one line, as elsewhere.
    recipe = read_recipe(out)
    found = study_status(recipe, out)
    try:
        with Live(_shown(found), console=console(), auto_refresh=False) as live:
            while found.num_done < found.num_cells:
                time.sleep(WATCH_SECONDS)
                found = study_status(recipe, out)
                live.update(_shown(found), refresh=True)
    except KeyboardInterrupt:  # the way out of watching: nothing was broken off
        return


def _shown(found: StudyStatus) -> Text:
    return Text("\n".join(map(visible, status_lines(found))))


def _time_left(found: StudyStatus) -> str:
    if found.num_done == found.num_cells:
        return ""
    # Estimates hold for the runners seen now; without any there is no progress.
    at_work = "" if found.num_runners else "; no runner is at work"
    if not found.kinds_unknown:
        return f"; about {_duration(found.seconds_left)} left{at_work}"
    unknown = f"not known yet for {', '.join(found.kinds_unknown)}"
    return f"; time left: at least {_duration(found.seconds_left)}, {unknown}{at_work}"


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return (
        f"{hours:.1f} h"
        if hours >= 1
        else f"{minutes:.0f} min"
        if minutes >= 2
        else f"{seconds:.0f} s"
    )
