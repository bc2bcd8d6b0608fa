"""Processor seconds of crafting candidates for every class of one network.

The plain loop as published is compared with the product's own.

The plain loop takes one class and one restart after the other: float32, contiguous, the weights'
gradients computed and thrown away, memory as the allocator gives it. The second plain loop reuses
freed memory as ours does, which is no part of the published code. All have the same schedule of the
cost, images, batches and number of steps, too few to stop early. Ours includes measuring its
candidates in float32, on so few images that its share is about twice that of a full run on 512.
Each run has a process of its own and one thread, and has imported and loaded everything before the
clock starts. Needs a study with a large CNN. Run: python benchmarks/cleanse_speed.py
runs/fashion-mnist
"""

import multiprocessing
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from wobbliness.attacks.gradients import frozen_network as differentiable
from wobbliness.detectors.reverse_engineering.cost_schedule import CostSchedule
from wobbliness.detectors.reverse_engineering.trigger_search import craft_candidates
from wobbliness.runtime.progress import ignore_progress
from wobbliness.study.cells.base import spec_file
from wobbliness.study.records.record import read_recipe
from wobbliness.study.training.data import load_data
from wobbliness.study.training.saved_networks import load_network

STEPS, BATCHES_PER_STEP, BATCH, RESTARTS, IMAGES, REPEATS = 20, 2, 32, 1, 128, 3
SHAPES = (1, 28, 28), (1, 28, 28)


def plain_candidate(network, images, target, seed):
    """One class as published; the smallest mask of a step at the threshold is kept."""
    torch.manual_seed(seed)
    mask_tanh, pattern_tanh = (
        torch.atanh(1.998 * torch.rand(shape) - 0.999).requires_grad_() for shape in SHAPES
    )
    optimiser = torch.optim.Adam([mask_tanh, pattern_tanh], lr=0.1, betas=(0.5, 0.9))
    schedule = CostSchedule(1, initial_cost=1e-3, success_threshold=0.99, patience=5)
    best, best_mask = np.inf, None
    labels = torch.full((BATCH,), target)
    for _ in range(STEPS):
        successes, norms = [], []
        for _ in range(BATCHES_PER_STEP):
            batch = images[torch.randperm(len(images))[:BATCH]]
            mask, pattern = (mask_tanh.tanh() + 1) / 2, (pattern_tanh.tanh() + 1) / 2
            logits = network((1 - mask) * batch + mask * pattern)
            loss = (
                nn.functional.cross_entropy(logits, labels) + float(schedule.costs[0]) * mask.sum()
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            successes.append((logits.argmax(dim=1) == labels).float().mean().item())
            norms.append(mask.sum().item())
        if (
            schedule.update(np.mean(successes, keepdims=True), np.mean(norms, keepdims=True))
            and norms[-1] < best
        ):
            best, best_mask = norms[-1], mask.detach().clone()
    return best_mask


def plain(path, dataset):
    network, images = prepared(path, dataset)
    network.to(memory_format=torch.contiguous_format)
    pixels = torch.from_numpy(images)
    started = time.process_time()
    for target in range(10):
        for restart in range(RESTARTS):
            plain_candidate(network, pixels, target, restart)
    return time.process_time() - started


def plain_that_keeps_memory(path, dataset):
    differentiable._raise_mmap_threshold()
    return plain(path, dataset)


def ours(path, dataset):
    network, images = prepared(path, dataset)
    counts = {
        "restarts": RESTARTS,
        "batch_size": BATCH,
        "batches_per_step": BATCHES_PER_STEP,
        "progress": ignore_progress,
    }
    # loads what is compiled
    craft_candidates(network, images, num_classes=10, max_steps=1, **counts)
    started = time.process_time()
    craft_candidates(network, images, num_classes=10, max_steps=STEPS, **counts)
    return time.process_time() - started


def prepared(path, dataset):
    torch.set_num_threads(1)
    network = load_network(path).eval()
    split = load_data(dataset).test
    images = split.images[np.random.default_rng(0).permutation(len(split.images))[:IMAGES]]
    network(torch.from_numpy(images[:BATCH]))
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # the first one imports for seconds
    return network, images


def in_own_process(side, *arguments):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(side, arguments)


def main():
    folder = Path(sys.argv[1])
    spec = next(
        spec for spec in read_recipe(folder).effect_networks if spec.architecture == "large_cnn"
    )
    path = spec_file(folder, spec)
    print(
        f"large CNN, {spec.dataset}: 10 classes, {RESTARTS} restart, "
        f"{STEPS} steps of {BATCHES_PER_STEP} batches of {BATCH}"
    )
    sides = (plain, plain_that_keeps_memory, ours)
    rounds = []
    for _ in range(REPEATS):
        rounds.append([in_own_process(side, path, spec.dataset) for side in sides])
        print(
            "  ".join(
                f"{side.__name__} {seconds:.1f} s"
                for side, seconds in zip(sides, rounds[-1], strict=True)
            ),
            flush=True,
        )
    for side, *times in zip(sides, *rounds, strict=True):
        ratio = statistics.median(
            seconds / run[-1] for seconds, run in zip(times, rounds, strict=True)
        )
        print(f"{side.__name__:<26}{statistics.median(times):>7.1f} s{ratio:>7.2f}", flush=True)


if __name__ == "__main__":
    main()
