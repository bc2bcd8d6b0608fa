"""A study of some seconds with every kind of file, and helpers of the tests of its safety."""

import dataclasses
import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from wobbliness.attacks.poisoning import t1
from wobbliness.study.cells.run import run_cell
from wobbliness.study.plan import plan
from wobbliness.study.recipes import Cleanse, Recipe, Universal
from wobbliness.study.records.locks import held_since
from wobbliness.study.records.record import is_done
from wobbliness.study.report.report import _write_tables
from wobbliness.study.running.ownership import take_ownership
from wobbliness.study.specs import NetworkSpec, cell_name
from wobbliness.study.tables.tables import form_tables

BASE = {
    "dataset": "digits",
    "architecture": "small_cnn",
    "epochs": 3,
    "batch_size": 32,
    "learning_rate": 3e-3,
}


def small(seed=0):
    """Two networks, a universal perturbation, Neural Cleanse, and the batches around them."""
    clean = NetworkSpec(**BASE, threat=None, trigger=None, seed=seed)
    poisoned = NetworkSpec(**BASE, threat=t1(5), trigger="checkerboard", seed=seed)
    return Recipe(
        name="small",
        seed=seed,
        parameter_networks=(clean,),
        parameter_points=5,
        draws_grid=(10, 250),
        parameter_sigmas=(0.3,),
        draws_sigmas=(0.3,),
        effect_networks=(poisoned,),
        effect_points=5,
        strength_networks=(),
        class_networks=(),
        class_points=5,
        detection_networks=(poisoned,),
        detection_points=5,
        universals=(Universal(norm="l2", bound=1.5, num_images=30),),
        cleanse=Cleanse(num_images=20, restarts=1, max_steps=5, num_points=5),
        response_levels=(1.0,),
        sigmas=(0.15, 0.3),
        control_pairs=10,
        control_points=5,
    )


def tables_of(out):
    """The bytes of every table of a study."""
    _write_tables(form_tables(out), out / "tables")
    return {path.name: path.read_bytes() for path in sorted((out / "tables").iterdir())}


def begin_from(finished, recipe, out, cells):
    """Makes a folder of the recipe in which some cells are done, as in another study's folder."""
    take_ownership(out, recipe)
    for cell in cells:
        for path in finished.glob(f"*/{cell.name}.*"):
            shutil.copy(path, out / path.parent.name)


def finish_times(out, recipe):
    """When the record of each finished cell was written."""
    records = {
        cell.name: out / "records" / f"{cell.name}.json"
        for cell in plan(recipe)
        if is_done(out / "records", cell.name)
    }
    return {name: path.stat().st_mtime_ns for name, path in records.items()}


def needs(cell):
    """Names of the cells that a cell needs, the first one first."""
    return [cell_name(spec) for spec in cell.spec.needs]


def held_cells(out, cells):
    """Names of the cells that some process is running: asked again and again, while others work."""
    return [cell.name for cell in cells if held_since(out, cell.name) is not None]


def unfinished_files(out):
    return [path.name for path in Path(out).rglob(".*") if path.is_file()]


RUN = """
from wobbliness.cli.main import main
from wobbliness.study.report import report

def draw_one(tables, folder):
    from wobbliness.study.report import figures

    first = figures.all_figures()[:1]
    figures.all_figures = lambda: first
    return figures.draw_figures(tables, folder)

report.draw_figures = draw_one
main()
"""


def start_runner(out, *options, recipe="small"):
    """Starts `wobbliness study run` of this file's recipe in its own process group.

    It draws one figure only, since each takes seconds.
    """
    arguments = ["study", "run", f"{__file__}:{recipe}", "--out", str(out), *map(str, options)]
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hear_interrupts,
    )


def hear_interrupts():
    """A process started in the background of a script inherits that Ctrl-C is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def workers_of(process):
    """Process ids of a runner's workers."""
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return [
            int(pid)
            for pid in children
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
    except OSError:
        return []


def kill(pid, number=signal.SIGKILL):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def wait_until(condition, seconds=90.0):
    """Waits for something to become true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)


def slow(seed=0):
    """The same with trainings that take a minute."""
    made = small(seed)
    networks = {
        name: tuple(dataclasses.replace(network, epochs=400) for network in getattr(made, name))
        for name in NETWORKS
    }
    return dataclasses.replace(made, name="slow", **networks)


NETWORKS = ("parameter_networks", "effect_networks", "detection_networks")
FAULTY = cell_name(small().effect_networks[0])


def do_with_fault(fault):
    """`run_cell` with a fault in one training: what a worker process is handed."""
    return do_with_faults({FAULTY: fault})


def do_with_faults(faults):
    """`run_cell` with the faults of some cells by their names."""
    return functools.partial(_do_with_faults, faults)


def _do_with_faults(faults, out, cell, recipe, progress, notice):
    if cell.name in faults:
        FAULTS[faults[cell.name]]()
    run_cell(out, cell, recipe, progress, notice)


def _raise():
    raise RuntimeError("the classifier\nlost its mind")


def _memory():
    raise MemoryError


FAULTS = {
    "raises": _raise,
    "no memory": _memory,
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exits": lambda: os._exit(3),
    "hangs": lambda: time.sleep(600),
}


def do_on_a_node(marks, head):
    """`run_cell` that leaves a mark for each beginning, and never ends on any node but the head."""
    return functools.partial(_do_on_a_node, marks, head)


def _do_on_a_node(marks, head, out, cell, recipe, progress, notice):
    import ray

    node = ray.get_runtime_context().get_node_id()
    (marks / f"{cell.name}@{node}").touch()
    if node != head:
        time.sleep(600)
    run_cell(out, cell, recipe, progress, notice)
