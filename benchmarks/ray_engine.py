"""The cost of the Ray engine beside the local one at equal cores, and the gain of a second core.

    # the digits with longer trainings, on 2 cores and on 1, all in one run
    python benchmarks/ray_engine.py
    # the cost alone, on a longer study
    python benchmarks/ray_engine.py --epochs 75 --ways local ray
    # the digits with more draws instead
    python benchmarks/ray_engine.py --epochs 20 --draws 1000

The same study is run by each engine in a new folder, in turns; whole commands are timed, from a
cold start of Python and Ray to the finished report. Tables are compared byte by byte. The command
on one core is bound to one, with all its processes: else Ray's own ones, the runner and the report
would have the other core to themselves.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from wobbliness.study.recipes import Recipe, digits

COMMAND = [sys.executable, "-c", "from wobbliness.cli.main import main; main()", "study", "run"]

EPOCHS, DRAWS = "RAY_ENGINE_EPOCHS", "RAY_ENGINE_DRAWS"
WAYS = {"local": (), "ray": ("--engine", "ray"), "ray-1-core": ("--engine", "ray")}


def longer(seed: int) -> Recipe:
    """Returns the digits with as many epochs and draws as the environment says.

    It is the environment, for the command reads this file by itself.
    """
    recipe = digits(seed)
    names = ("effect_networks", "strength_networks", "class_networks", "detection_networks")
    networks = {
        name: tuple(
            replace(network, epochs=int(os.environ[EPOCHS])) for network in getattr(recipe, name)
        )
        for name in names
    }
    return replace(
        recipe, name="longer", draws=int(os.environ[DRAWS]), parameter_networks=(), **networks
    )


def timed(out: Path, cores: int, *options: str) -> float:
    """Seconds of one whole study on that many cores."""
    began = time.perf_counter()
    recipe, chosen = f"{Path(__file__).resolve()}:longer", sorted(os.sched_getaffinity(0))[:cores]
    subprocess.run(
        [*COMMAND, recipe, "--out", str(out), "--json", "--workers", str(cores), *options],
        check=True,
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, chosen),
    )
    return time.perf_counter() - began


def tables(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "tables").iterdir())}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=60, help="of each training")
    parser.add_argument("--draws", type=int, default=250, help="of each measurement")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    arguments = parser.parse_args()
    os.environ |= {EPOCHS: str(arguments.epochs), DRAWS: str(arguments.draws)}
    cores = arguments.cores
    seconds: dict[str, list[float]] = {way: [] for way in arguments.ways}
    found: set[bytes] = set()
    for _ in range(arguments.repeats):
        for way in arguments.ways:
            with tempfile.TemporaryDirectory() as folder:
                on = 1 if way == "ray-1-core" else cores
                seconds[way].append(timed(Path(folder) / "study", on, *WAYS[way]))
                found.add(repr(tables(Path(folder) / "study")).encode())
                shutil.rmtree(Path(folder) / "study")
            print(way, round(seconds[way][-1], 1), file=sys.stderr, flush=True)
    best = {way: min(values) for way, values in seconds.items()}
    ratios = {"ray / local": ("ray", "local"), f"1 core / {cores} cores": ("ray-1-core", "ray")}
    facts = {
        name: round(best[one] / best[other], 3)
        for name, (one, other) in ratios.items()
        if {one, other} <= best.keys()
    }
    rounded = {way: [round(value, 1) for value in values] for way, values in seconds.items()}
    print(json.dumps({"seconds": rounded, **facts, "tables are equal": len(found) == 1}))


if __name__ == "__main__":
    main()
