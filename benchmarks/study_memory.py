"""The peak memory of a whole study beside that of its cells, each alone in a process.

    python benchmarks/study_memory.py              # the digits
    python benchmarks/study_memory.py --networks 2 # with twice as many networks of each kind

Cells are done in one process, as with `--workers 1`, so that whatever one cell leaves behind would
add up.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from wobbliness.runtime.progress import ignore_progress
from wobbliness.study.cells.run import run_cell
from wobbliness.study.plan import plan
from wobbliness.study.recipes import Recipe, digits
from wobbliness.study.running.runner import run_study


def recipe_of(networks: int) -> Recipe:
    """The digits with each detection network so many times, of other seeds."""
    recipe = digits(0)
    more = tuple(
        replace(network, seed=network.seed + 100 * k)
        for k in range(networks)
        for network in recipe.detection_networks
    )
    return replace(recipe, name=f"digits-{networks}", detection_networks=more)


def memory(name: str) -> float:
    """MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def peak_of(recipe: Recipe, out: Path, cell: str | None) -> float:
    """MiB that a process had at most while it did one cell again, or the whole study."""
    if cell is None:
        run_study(recipe, out, workers=1)
    else:
        run_cell(
            out,
            next(other for other in plan(recipe) if other.name == cell),
            recipe,
            ignore_progress,
        )
    return memory("VmHWM")


def peak_in_a_process(networks: int, out: Path, cell: str | None) -> float:
    arguments = [
        sys.executable,
        __file__,
        "--networks",
        str(networks),
        "--out",
        str(out),
        *(["--cell", cell] if cell else []),
    ]
    done = subprocess.run([*arguments, "--child"], check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", type=int, default=1)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    recipe = recipe_of(arguments.networks)
    if arguments.child:
        print(peak_of(recipe, arguments.out, arguments.cell))
        return
    folder = Path(tempfile.mkdtemp())
    whole = peak_in_a_process(arguments.networks, folder / "study", None)
    largest = {
        cell.kind: cell.name
        for cell in sorted(plan(recipe), key=lambda cell: getattr(cell.spec, "num_points", 0))
    }
    cells = {
        kind: round(peak_in_a_process(arguments.networks, folder / "study", name))
        for kind, name in largest.items()
    }
    shutil.rmtree(folder)
    print(
        json.dumps(
            {"cells": len(plan(recipe)), "MiB, whole study": round(whole), "MiB, one cell": cells}
        )
    )


if __name__ == "__main__":
    main()
