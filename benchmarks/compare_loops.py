"""Measures votes by `measure` and by the usual randomized-smoothing loop, in one run; prints the ratio of their rates.

The loop is the algorithm as Cohen et al. (2019) publish it: one image at a time, eager, contiguous, batches of noisy copies.
Run: python benchmarks/compare_loops.py
"""

import copy
import statistics
import time

import torch

import wobbliness
from wobbliness.study.networks import build_network

NUM_IMAGES, DRAWS, SIGMA, REPEATS = 8, 250, 0.15, 5
SHAPE, NUM_CLASSES = (1, 28, 28), 10


@torch.inference_mode()
def smoothing_loop(network, images):
    counts = torch.zeros(len(images), NUM_CLASSES, dtype=torch.int64)
    for index, image in enumerate(images):
        noisy = image.repeat(DRAWS, 1, 1, 1) + SIGMA * torch.randn(DRAWS, *SHAPE)
        for label in network(noisy).argmax(dim=1):
            counts[index, label] += 1
    return counts


def seconds(function):
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def compare(architecture):
    network = build_network(architecture, SHAPE, NUM_CLASSES, seed=0).eval()
    contiguous = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    images = torch.rand(NUM_IMAGES, *SHAPE, generator=torch.Generator().manual_seed(0))

    def ours():
        return wobbliness.measure(network, images, SIGMA, draws=DRAWS)

    def theirs():
        return smoothing_loop(contiguous, images)

    ours(), theirs()
    rounds = [(seconds(ours), seconds(theirs)) for _ in range(REPEATS)]
    forwards = NUM_IMAGES * DRAWS
    rates = [forwards / statistics.median(side) for side in zip(*rounds, strict=True)]
    ratio = statistics.median(slow / fast for fast, slow in rounds)
    print(f"{architecture:<18} {rates[0]:>12,.0f} {rates[1]:>12,.0f} {ratio:>7.2f}")


if __name__ == "__main__":
    print(f"{'network':<18} {'ours, 1/s':>12} {'loop, 1/s':>12} {'ratio':>7}   (noisy copies, median of {REPEATS})")
    for name in ("small_cnn", "large_cnn", "resnet18_width16"):
        compare(name)
