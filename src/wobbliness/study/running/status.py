"""Progress of a study, read from its folder alone, with or without a runner."""

import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from wobbliness.runtime.files import check_study_folder
from wobbliness.study.plan import plan
from wobbliness.study.recipes import Recipe
from wobbliness.study.records.failures import Failure, read_failure
from wobbliness.study.records.locks import held_since, num_runners
from wobbliness.study.records.record import is_done, read_content
from wobbliness.study.specs import Cell

MAX_SECONDS = 1e9  # of one cell; a record that says more, or no number, tells nothing


@dataclass(frozen=True, kw_only=True)
class RunningCell:
    """Cell that some process is running, and for how many seconds."""

    cell: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class StudyStatus:
    """Share of a study that is recorded.

    Attributes:
        recipe: its name.
        seed: its seed.
        num_cells: planned; each is done, running, failed or left.
        num_done: recorded.
        running: by whichever runner.
        failed: what failed when it was last tried; `study run` tries it again.
        left: names of the others.
        num_runners: at work in the folder.
        seconds_left: until all is done with as many cells at a time as run now (one, where none
            does); the sum over the cells whose duration can be told from recorded ones of the same
            kind and architecture.
        kinds_unknown: kinds of cells of which none is recorded, so that `seconds_left` lacks them.
    """

    recipe: str
    seed: int
    num_cells: int
    num_done: int
    running: tuple[RunningCell, ...]
    failed: tuple[Failure, ...]
    left: tuple[str, ...]
    num_runners: int
    seconds_left: float
    kinds_unknown: tuple[str, ...]


def study_status(recipe: Recipe, out: Path) -> StudyStatus:
    """Reads the records, locks and failures in the folder, and changes nothing.

    Raises:
        ValueError: there is a link in the folder.
    """
    check_study_folder(out)
    cells = plan(recipe)
    done = {cell.name for cell in cells if is_done(out / "records", cell.name)}
    undone = [cell for cell in cells if cell.name not in done]
    now, since = time.time(), {cell.name: held_since(out, cell.name) for cell in undone}
    running = {name: max(0.0, now - start) for name, start in since.items() if start is not None}
    failures = {
        cell.name: read_failure(out, cell.name) for cell in undone if cell.name not in running
    }
    failed = tuple(failure for failure in failures.values() if failure is not None)
    seconds, unknown = _time_left(
        undone, running, _rates(out, [cell for cell in cells if cell.name in done])
    )
    return StudyStatus(
        recipe=recipe.name,
        seed=recipe.seed,
        num_cells=len(cells),
        num_done=len(done),
        running=tuple(RunningCell(cell=name, seconds=seconds) for name, seconds in running.items()),
        failed=failed,
        left=tuple(name for name, failure in failures.items() if failure is None),
        num_runners=num_runners(out),
        seconds_left=seconds,
        kinds_unknown=unknown,
    )


def _time_left(
    undone: Iterable[Cell], running: dict[str, float], rates: dict[tuple[str, str], float]
) -> tuple[float, tuple[str, ...]]:
    seconds, unknown = 0.0, set[str]()
    for cell in undone:
        if (rate := rates.get(_rate_key(cell))) is None:
            unknown.add(cell.kind)
        else:
            # the time that a running cell has had already is not left
            seconds += max(0.0, rate * cell.spec.work - running.get(cell.name, 0.0))
    return seconds / max(1, len(running)), tuple(sorted(unknown))


def _rates(out: Path, done: Iterable[Cell]) -> dict[tuple[str, str], float]:
    """Computes the seconds for a unit of work of each kind and architecture."""
    seconds, work = (
        defaultdict[tuple[str, str], float](float),
        defaultdict[tuple[str, str], float](float),
    )
    for cell in done:
        try:
            duration = float(
                read_content(out / "records", cell.name)["provenance"]["duration_seconds"]
            )
        except (
            ValueError,
            KeyError,
            TypeError,
            OverflowError,
        ):  # damaged; `study run` deals with it
            continue
        if not 0 <= duration < MAX_SECONDS:
            continue
        seconds[_rate_key(cell)] += duration
        work[_rate_key(cell)] += cell.spec.work
    return {key: seconds[key] / work[key] for key in seconds}


def _rate_key(cell: Cell) -> tuple[str, str]:
    network = cell.spec.network
    return cell.kind, f"{network.architecture} on {network.dataset}"
