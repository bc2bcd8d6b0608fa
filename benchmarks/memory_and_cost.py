"""Peak memory above the loaded model, and time, as images and draws grow tenfold.

The model is the large CNN on 28 x 28 images. Run: python benchmarks/memory_and_cost.py
"""

import time
from pathlib import Path

import numpy as np

import wobbliness
from wobbliness.study.training.networks import build_network

SIGMA, CASES = 0.15, ((300, 250), (3000, 250), (300, 2500), (10_000, 250))


def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


if __name__ == "__main__":
    network = build_network("large_cnn", (1, 28, 28), 10, seed=0)
    images = np.random.default_rng(0).random((10_000, 1, 28, 28), dtype=np.float32)
    wobbliness.measure(network, images[:40], SIGMA, draws=250)
    print(f"{'images':>8}{'draws':>8}{'MiB above':>11}{'seconds':>9}{'us a copy':>11}")
    for num_images, draws in CASES:
        Path("/proc/self/clear_refs").write_text("5")
        before, started = memory("VmRSS"), time.perf_counter()
        wobbliness.measure(network, images[:num_images], SIGMA, draws=draws)
        seconds = time.perf_counter() - started
        peak = max(0.0, memory("VmHWM") - before)
        print(
            f"{num_images:>8}{draws:>8}{peak:>11.0f}{seconds:>9.2f}"
            f"{seconds / num_images / draws * 1e6:>11.2f}",
            flush=True,
        )
