"""The gain of a second core of this machine for the work of a study's cells.

There is no engine, no schedule and no file in it. Two processes are started and warmed up once. In
each round one of them works for some seconds while the other sleeps, then both work at once, so
that other guests of the machine meet both alike; the ratio of a round is what both did over what
the one did. A loop of plain Python and a product of matrices that fit the cache say how much is the
machine's own. The median of the rounds bounds what any engine can reach here. Run: python
benchmarks/second_core.py [--rounds 5] [--seconds 6]
"""

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection

import torch

from wobbliness import sweep
from wobbliness.attacks.universal_perturbation import craft_universal_perturbation
from wobbliness.detectors.reverse_engineering.trigger_search import craft_candidates
from wobbliness.runtime.progress import ignore_progress
from wobbliness.study.recipes import digits
from wobbliness.study.training.data import load_data
from wobbliness.study.training.networks import build_network
from wobbliness.study.training.train import train_network

LOOP, MATRIX, PRODUCTS = 200_000, 96, 500


def works() -> dict[str, Callable[[], object]]:
    """One short piece of each kind of cell of the digits, and two controls."""
    data = load_data("digits")
    network = build_network(
        "small_cnn", data.test.images.shape[1:], data.test.num_classes, seed=0
    ).eval()
    spec, quiet = replace(digits(0).effect_networks[0], epochs=1), {"progress": ignore_progress}
    matrix = torch.rand(MATRIX, MATRIX)
    return {
        "plain loop": lambda: sum(range(LOOP)),
        "matrices in the cache": lambda: [matrix @ matrix for _ in range(PRODUCTS)],
        "train": lambda: train_network(spec, data, **quiet),
        "measure": lambda: sweep(network, data.test.images[:10], [0.1, 0.2], workers=1, **quiet),
        "universal": lambda: craft_universal_perturbation(
            network, data.train.images[:50], norm=2.0, bound=0.1, max_passes=1, **quiet
        ),
        "cleanse": lambda: craft_candidates(
            network, data.test.images[:64], num_classes=10, restarts=1, max_steps=2, **quiet
        ),
    }


def serve(pipe: Connection) -> None:
    """Answers (kind, seconds) with pieces done a second, until None comes."""
    torch.set_num_threads(1)
    known = works()
    for work in known.values():
        work()
    pipe.send(list(known))
    while (order := pipe.recv()) is not None:
        kind, seconds = order
        done, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            known[kind]()
            done += 1
        pipe.send(done / (time.perf_counter() - began))


def rate(pipes: list[Connection], kind: str, seconds: float) -> float:
    for pipe in pipes:
        pipe.send((kind, seconds))
    return sum(pipe.recv() for pipe in pipes)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--seconds", type=float, default=6.0, help="that each side of a round works"
    )
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    pipes = []
    for _ in range(2):
        ours, theirs = context.Pipe()
        context.Process(target=serve, args=(theirs,), daemon=True).start()
        pipes.append(ours)
    ready: list[list[str]] = [pipe.recv() for pipe in pipes]
    ratios: dict[str, list[float]] = {kind: [] for kind in ready[0]}
    for _ in range(arguments.rounds):
        for kind, found in ratios.items():
            alone = rate(pipes[:1], kind, arguments.seconds)
            found.append(rate(pipes, kind, arguments.seconds) / alone)
    for kind, found in ratios.items():
        print(
            f"{kind:<24}{statistics.median(found):>6.2f}   [{min(found):.2f}, {max(found):.2f}]",
            flush=True,
        )
    for pipe in pipes:
        pipe.send(None)


if __name__ == "__main__":
    main()
