"""A study killed at random moments and run again each time, against an undisturbed run.

Each kill is SIGKILL to the runner, to one of its workers, or to all of them, after a random time.
At the end the tables have to be equal byte for byte, no finished cell may have been done twice, and
no unfinished file may be left.

    python benchmarks/chaos.py                     # 100 kills of the digits study
    python benchmarks/chaos.py --kills 5 --recipe my_study.py:recipe --seed 1
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from wobbliness.study.plan import plan
from wobbliness.study.recipes import Recipe, recipe_by_name
from wobbliness.study.records.locks import held_since

COMMAND = [sys.executable, "-c", "from wobbliness.cli.main import main; main()", "study", "run"]
FIRST_CELL_SECONDS = 600.0
POLL_SECONDS = 0.05


@dataclass(kw_only=True)
class Chaos:
    """What was done to a study and what became of it."""

    num_kills: dict[str, int] = field(default_factory=lambda: {"runner": 0, "worker": 0, "all": 0})
    num_starts: int = 0
    finished: dict[str, int] = field(default_factory=dict)
    done_twice: list[str] = field(default_factory=list)
    differing_tables: list[str] = field(default_factory=list)
    unfinished_files: list[str] = field(default_factory=list)

    @property
    def is_harmless(self) -> bool:
        """Whether nothing was lost, done twice or left lying about."""
        return not (self.done_twice or self.differing_tables or self.unfinished_files)


def kill_at_random(
    name: str, recipe: Recipe, out: Path, undisturbed: Path, *, kills: int, seed: int, pause: float
) -> Chaos:
    """Disturbs a study `kills` times and lets it end.

    Args:
        name: of the recipe, as `wobbliness study run` takes it.
        recipe: the same.
        out: the folder to be disturbed, new.
        undisturbed: the folder of a finished run.
        kills: how many.
        seed: of the moments and victims.
        pause: seconds at most from the moment a cell is in work to the kill.
    """
    rng, chaos = random.Random(seed), Chaos()
    while sum(chaos.num_kills.values()) < kills:
        process = _start(name, recipe, out, chaos)
        if _wait_for_work(process, recipe, out):
            time.sleep(rng.uniform(0, pause))
            _kill(process, rng.choice(("runner", "worker", "all")), rng, chaos)
        else:  # it has ended: what there is left to disturb is the making of its last cells
            _forget_some(out, recipe, rng, chaos)
        _take_stock(out, recipe, chaos)
    # a killed worker's cell has failed, and is tried again
    while _start(name, recipe, out, chaos).wait() != 0:
        _take_stock(out, recipe, chaos)
    _take_stock(out, recipe, chaos)
    chaos.differing_tables = [
        path.name
        for path in _tables(undisturbed)
        if not _is_equal(path, out / "tables" / path.name)
    ]
    chaos.unfinished_files = [str(path) for path in out.rglob(".*") if path.is_file()]
    return chaos


def _start(name: str, recipe: Recipe, out: Path, chaos: Chaos) -> subprocess.Popen[bytes]:
    chaos.num_starts += 1
    command = [
        *COMMAND,
        name,
        "--out",
        str(out),
        "--seed",
        str(recipe.seed),
        "--workers",
        "2",
        "--json",
    ]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def _wait_for_work(process: subprocess.Popen[bytes], recipe: Recipe, out: Path) -> bool:
    """Waits until a cell is in work; False where the runner ended before."""
    names, end = [cell.name for cell in plan(recipe)], time.monotonic() + FIRST_CELL_SECONDS
    while process.poll() is None:
        if any(held_since(out, name) is not None for name in names):
            return True
        if time.monotonic() > end:
            raise TimeoutError("no cell was ever in work")
        time.sleep(POLL_SECONDS)
    return False


def _kill(process: subprocess.Popen[bytes], victim: str, rng: random.Random, chaos: Chaos) -> None:
    """Kills the runner, one of its workers, or all of them.

    A runner that lost a worker goes on for a moment, so that it deals with that, and is killed
    then.
    """
    workers = _workers(process)
    chaos.num_kills[victim] += 1
    chosen = {
        "runner": [process.pid],
        "worker": [rng.choice(workers)] if workers else [],
        "all": [process.pid, *workers],
    }[victim]
    for pid in chosen:
        _signal(pid)
    if victim == "worker":
        time.sleep(rng.uniform(0, 2))
        _signal(process.pid)
    process.wait()


def _workers(process: subprocess.Popen[bytes]) -> list[int]:
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return [
            int(pid)
            for pid in children
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
    except OSError:
        return []


def _signal(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _take_stock(out: Path, recipe: Recipe, chaos: Chaos) -> None:
    """Notes which records are there, and which of them are not the ones that were there before."""
    for cell in plan(recipe):
        path = out / "records" / f"{cell.name}.json"
        if path.exists():
            written = path.stat().st_mtime_ns
            if chaos.finished.setdefault(cell.name, written) != written:
                chaos.done_twice.append(cell.name)
                chaos.finished[cell.name] = written
        elif chaos.finished.pop(cell.name, None) is not None:
            chaos.done_twice.append(cell.name)


def _forget_some(out: Path, recipe: Recipe, rng: random.Random, chaos: Chaos) -> None:
    """Removes a third of a finished study's records, so that there is something to be killed at."""
    recorded = [
        cell.name for cell in plan(recipe) if (out / "records" / f"{cell.name}.json").exists()
    ]
    for name in rng.sample(recorded, -(-len(recorded) // 3)):
        (out / "records" / f"{name}.json").unlink()
        chaos.finished.pop(name, None)


def _tables(out: Path) -> list[Path]:
    return sorted((out / "tables").iterdir())


def _is_equal(path: Path, other: Path) -> bool:
    return other.is_file() and path.read_bytes() == other.read_bytes()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--recipe", default="digits")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and victims")
    parser.add_argument(
        "--pause",
        type=float,
        default=15.0,
        help="seconds at most from the first cell in work to the kill",
    )
    arguments = parser.parse_args()
    recipe = recipe_by_name(arguments.recipe, 0)
    with tempfile.TemporaryDirectory() as folder:
        undisturbed, out = Path(folder) / "undisturbed", Path(folder) / "disturbed"
        _start(arguments.recipe, recipe, undisturbed, Chaos()).wait()
        chaos = kill_at_random(
            arguments.recipe,
            recipe,
            out,
            undisturbed,
            kills=arguments.kills,
            seed=arguments.seed,
            pause=arguments.pause,
        )
    summary = {name: value for name, value in vars(chaos).items() if name != "finished"}
    print(
        json.dumps(
            summary
            | {
                "cells": len(plan(recipe)),
                "done_twice": len(chaos.done_twice),
                "harmless": chaos.is_harmless,
            }
        )
    )
    sys.exit(not chaos.is_harmless)


if __name__ == "__main__":
    main()
