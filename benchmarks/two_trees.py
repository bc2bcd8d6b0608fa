"""Compares the speed of `measure` in two source trees, in turn, and the share that the probe takes.

    python benchmarks/two_trees.py OLD/src src [--rounds 15]

Each tree has a process of its own on one core, both wait for each other. The ratio is the median
over the rounds of old / new processor time: below 1 the new one is slower. The first row compares
the new tree with itself: how far from 1 chance alone goes.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

NETWORKS = ("small_cnn", "large_cnn")
CHILD = """
import json, sys, time, warnings
import numpy as np
import wobbliness
try:
    from wobbliness.sampling import plan
    from wobbliness.study.training.networks import build_network
except ImportError:  # a tree from before the rooms
    from wobbliness import planning as plan
    from wobbliness.study.networks import build_network
warnings.simplefilter("ignore")
networks = {name: build_network(name, (1, 28, 28), 10, seed=0) for name in %r}
images = np.random.default_rng(0).random((100, 1, 28, 28), dtype=np.float32)
probe, spent = getattr(plan, "probe", None), [0.0]

def timed(*arguments, **options):
    start = time.process_time()
    try:
        return probe(*arguments, **options)
    finally:
        spent[0] += time.process_time() - start

if probe is not None:
    plan.probe = timed
for network in networks.values():
    wobbliness.measure(network, images[:4], 0.15)
print("ready", flush=True)
for line in sys.stdin:
    spent[0], start = 0.0, time.process_time()
    wobbliness.measure(networks[line.strip()], images, 0.15)
    print(json.dumps([time.process_time() - start, spent[0]]), flush=True)
"""


def start(tree: Path) -> subprocess.Popen:
    """A process that measures with the code of a tree whenever it is told to."""
    code = f"import os; os.sched_setaffinity(0, {{0}})\n{CHILD % (NETWORKS,)}"
    environment = os.environ | {"PYTHONPATH": str(tree.resolve())}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd="/",
    )
    assert process.stdout.readline() == "ready\n"
    return process


def seconds(process: subprocess.Popen, network: str) -> tuple[float, float]:
    """Processor time of one measurement, and of its probe."""
    process.stdin.write(network + "\n")
    process.stdin.flush()
    return tuple(json.loads(process.stdout.readline()))


def compare(old: Path, new: Path, network: str, rounds: int) -> tuple[float, float]:
    """The median ratio old / new, and the probe's median share in the new tree."""
    processes = start(old), start(new)
    ratios, shares = [], []
    for number in range(rounds):
        order = (0, 1) if number % 2 else (1, 0)
        taken = {which: seconds(processes[which], network) for which in order}
        ratios.append(taken[0][0] / taken[1][0])
        shares.append(taken[1][1] / taken[1][0])
    for process in processes:
        process.stdin.close()
        process.wait()
    return statistics.median(ratios), statistics.median(shares)


def main() -> None:
    """Prints a line for each network and pair of trees."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    for network in NETWORKS:
        for name, old in (("new / new", options.new), ("old / new", options.old)):
            ratio, share = compare(old, options.new, network, options.rounds)
            print(f"{network:10} {name}: {ratio:.3f}, probe {share:.2%} of the time", flush=True)


if __name__ == "__main__":
    main()
