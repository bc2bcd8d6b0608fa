"""Runs one cell of any kind and writes its record."""

import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import torch

from wobbliness.classifiers.torch_module import torch_threads
from wobbliness.runtime.files import CHECKPOINTS, file_checksum
from wobbliness.runtime.progress import Notice, Progress, print_notice
from wobbliness.study.cells.base import Context, Outcome, spec_file
from wobbliness.study.identity import written
from wobbliness.study.recipes import Recipe
from wobbliness.study.records.record import Record, provenance, write_record
from wobbliness.study.specs import Cell, spec_types
from wobbliness.study.training.checkpoints import Checkpoint
from wobbliness.study.training.device import ON_THE_CPU, Place
from wobbliness.study.training.train import THREADS, training_precision

RUN: dict[str, Callable[..., Outcome]] = {
    kind: import_module(f"{__package__}.{kind}").run for kind in spec_types()
}
"""Functions that run each kind of cell: `cells/KIND.py`."""


def run_cell(
    out: Path,
    cell: Cell,
    recipe: Recipe,
    progress: Progress,
    notice: Notice = print_notice,
    *,
    place: Place = ON_THE_CPU,
) -> None:
    """Computes one cell and writes its record to the study folder."""
    started, checkpoint = time.perf_counter(), _checkpoint(out, cell, notice, place)
    context = Context(out=out, recipe=recipe, place=place, progress=progress, checkpoint=checkpoint)
    with torch_threads(THREADS):
        outcome = RUN[cell.kind](cell.spec, context)
    seconds = checkpoint.seconds_before + time.perf_counter() - started
    record = Record(
        spec=cell.spec,
        results=outcome.results,
        provenance=provenance(seconds, THREADS, place.name),
        table=outcome.table,
    )
    # weights are on disk by now; the record, written last, vouches for them
    has_weights = cell.spec.weights_folder is not None
    weights = file_checksum(spec_file(out, cell.spec)) if has_weights else None
    write_record(out / "records", cell, record, recipe=recipe, weights=weights)
    checkpoint.remove()


def _checkpoint(out: Path, cell: Cell, notice: Notice, place: Place) -> Checkpoint:
    precision = training_precision(place.torch_device)
    identity = {
        "spec": written(cell.spec),
        "torch": torch.__version__,
        "device": place.name,
        "precision": precision,
    }
    return Checkpoint(out / CHECKPOINTS / f"{cell.name}.safetensors", identity, notice)
