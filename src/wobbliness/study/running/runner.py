"""Runner of a study's cells.

A cell that is recorded already is not run again, whoever recorded it.
"""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wobbliness.runtime.files import CannotWrite, StudyStopped, check_study_folder
from wobbliness.runtime.process_state import without_collection
from wobbliness.runtime.progress import Notice, Progress, ignore_progress, print_notice
from wobbliness.runtime.ray import ray_cluster
from wobbliness.runtime.threads import num_cores
from wobbliness.study.plan import plan
from wobbliness.study.recipes import Recipe
from wobbliness.study.records.failures import read_failure
from wobbliness.study.records.integrity import cells_left, needs_of, remove_stale_checkpoints
from wobbliness.study.records.locks import runner_lock
from wobbliness.study.records.record import is_done
from wobbliness.study.running.engine import CellProgress, Engine, Job, Result
from wobbliness.study.running.local import InThisProcess
from wobbliness.study.running.ownership import take_ownership
from wobbliness.study.running.ray import RayEngine
from wobbliness.study.running.run_cell import RunCell
from wobbliness.study.running.schedule import Schedule
from wobbliness.study.running.store import Store
from wobbliness.study.running.worker_pool import WorkerPool
from wobbliness.study.specs import Cell
from wobbliness.study.training.data import require_data
from wobbliness.study.training.device import ON_THE_CPU, Place

POLL_SECONDS = 0.2


class StudyFailed(StudyStopped):
    """Failure of a cell; the other cells were done all the same."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Ray cluster to run the cells on.

    Attributes:
        address: `HOST:PORT`, `ray://HOST:PORT` or `auto`; None for a Ray of this machine alone,
            which ends with the study.
        store: URL of fsspec through which nodes get and leave files; None where all of them see the
            study's folder at its path.
    """

    address: str | None = None
    store: str | None = None


def run_study(
    recipe: Recipe,
    out: Path,
    *,
    only: Iterable[str] | None = None,
    workers: int | None = None,
    cell_timeout: float | None = None,
    retry: bool = True,
    progress: CellProgress | None = None,
    notice: Notice = print_notice,
    cluster: Cluster | None = None,
    place: Place = ON_THE_CPU,
    do: RunCell | None = None,
) -> None:
    """Runs every cell of the study that has no record yet.

    Several runners may share a folder.

    Args:
        recipe: the study.
        out: its folder, new or this recipe's own.
        only: ids of the claims wanted; all by default.
        workers: processes, each with one core; by default one per core. With 1 the cells run in
            this process, unless there is a `cell_timeout` or a `cluster`. On a cluster: cells in
            its hands at most; by default all that can be done.
        cell_timeout: seconds that one cell may take; its process is killed then and the cell has
            failed. No limit by default.
        retry: whether cells that failed in an earlier run are tried again.
        progress: called with (cell name, steps done, steps in all).
        notice: called with one line for each damaged file that was set aside; by default it is
            printed on standard error.
        cluster: of Ray, on which the cells are done instead of here; the records are the same.
        place: where the networks run, here or on each node of the cluster. An accelerator gives
            other networks and other noise: records of both can share a folder, and each says where
            it was made.
        do: what does one cell; by default `wobbliness.study.cells.run.run_cell` at that place.

    Raises:
        ValueError: the folder or the store belongs to another recipe or holds a link, the folder's
            name is not UTF-8, a claim is unknown, a data set cannot be had, or there is no such
            cluster or device.
        CannotWrite: the folder cannot be written to; what was done before is kept.
        StudyFailed: some cell failed, when all that could be done is done.
    """
    check_study_folder(out)
    _check_name(out)
    if cluster is None:
        place.check()
    do = do or _CellsAt(place)
    cells, store = (
        plan(recipe, only),
        None if cluster is None or cluster.store is None else Store(cluster.store),
    )
    if store is not None:
        take_ownership(out, recipe, notice=notice)
        store.take_ownership(out)
        # before jobs are listed: what the store has need not be done
        _fetch_missing(store, out, cells)
    jobs = _jobs(out, cells)
    # fail before the first cell, not in the middle of the study
    for dataset in {job.cell.spec.network.dataset for job in jobs}:
        require_data(dataset)
    take_ownership(out, recipe, notice=notice)
    remove_stale_checkpoints(out)
    if store is not None:
        _keep_needed(store, out, jobs)
    schedule = Schedule(jobs, {} if retry else _earlier_failures(out, jobs))
    report = progress or ignore_progress
    settings: dict[str, Any] = {"cell_timeout": cell_timeout, "progress": report, "notice": notice}
    with ExitStack() as stack:
        engine: Engine
        if cluster is not None:
            ray = stack.enter_context(ray_cluster(cluster.address, cores=workers))
            max_cells = workers if cluster.address else None
            engine = RayEngine(ray, out, recipe, do, max_cells=max_cells, store=store, **settings)
        elif workers == 1 and cell_timeout is None:
            engine = InThisProcess(out, recipe, do, report, notice)
        else:
            engine = WorkerPool(
                out, recipe, do, num_workers=min(workers or num_cores(), len(jobs)), **settings
            )
        stack.callback(engine.close)
        stack.enter_context(runner_lock(out))
        _run(schedule, engine, report)
    _raise_failures(out, schedule, len(jobs))


def _check_name(out: Path) -> None:
    """Checks that safetensors can open files in the folder, before the first training."""
    try:
        str(out.resolve()).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"expected an output folder whose name is UTF-8, got {out}") from error


@dataclass(frozen=True)
class _CellsAt:
    """`run_cell` on a device.

    A runner imports no torch for it; a process that receives it has imported everything.
    """

    place: Place

    def __call__(
        self, out: Path, cell: Cell, recipe: Recipe, progress: Progress, notice: Notice
    ) -> None:
        from wobbliness.study.cells.run import run_cell

        run_cell(out, cell, recipe, progress, notice, place=self.place)

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (self.place,)


def _received(place: Place) -> _CellsAt:
    # takes seconds, which must not count towards the time of a cell
    with without_collection():
        import wobbliness.study.cells.run  # noqa: F401

    return _CellsAt(place)


def _fetch_missing(store: Store, out: Path, cells: Sequence[Cell]) -> None:
    """Fetches cells that others did for the same store."""
    there = store.names()
    for cell in cells:
        if cell.name in there and not is_done(out / "records", cell.name):
            store.fetch(out, cell.name)


def _keep_needed(store: Store, out: Path, jobs: Sequence[Job]) -> None:
    """Writes cells that were done here and that a job needs to the store."""
    needed = {name for job in jobs for name in needs_of(job.cell)} - {job.cell.name for job in jobs}
    for name in needed - store.names():
        store.keep(out, name)


def _jobs(out: Path, cells: Sequence[Cell]) -> list[Job]:
    left = cells_left(out, cells)
    return [
        Job(
            cell=cell,
            needs_weights=left[cell.name],
            known_failure=failed.attempt if failed else None,
        )
        for cell in cells
        if cell.name in left
        for failed in [read_failure(out, cell.name)]
    ]


def _earlier_failures(out: Path, jobs: Sequence[Job]) -> dict[str, str]:
    found = {job.cell.name: read_failure(out, job.cell.name) for job in jobs}
    return {name: failed.message for name, failed in found.items() if failed is not None}


def _run(schedule: Schedule, engine: Engine, report: CellProgress) -> None:
    """Submits each cell as soon as those it needs are done."""
    while not schedule.is_finished:
        while engine.has_room() and (job := schedule.take()) is not None:
            engine.submit(job)
        for outcome in engine.wait(POLL_SECONDS):
            if outcome.result is Result.CANNOT_WRITE:
                raise CannotWrite(outcome.message)
            schedule.note(outcome)
            if outcome.result is not Result.BUSY:
                report(outcome.cell, 1, 1)


def _raise_failures(out: Path, schedule: Schedule, num_jobs: int) -> None:
    """Raises StudyFailed for cells that failed here and that no other runner did since."""
    failures = {
        name: message
        for name, message in schedule.failures.items()
        if not is_done(out / "records", name)
    }
    if failures:
        name, message = next(iter(failures.items()))
        raise StudyFailed(f"{len(failures)} of {num_jobs} cells failed; {name}: {message}")
