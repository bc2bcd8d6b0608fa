"""Nanoseconds per normal value by several ways to draw them, ours last.

They are those on one thread and on every core at once. Run: python benchmarks/noise_speed.py
"""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from wobbliness.perturbations.base import Scratch
from wobbliness.perturbations.noise.gaussian import NormalStream
from wobbliness.runtime.threads import num_cores

DRAWS, SIZE, IMAGES, REPEATS = 250, 784, 100, 7


def numpy_ziggurat():
    generator, draws = np.random.Generator(np.random.SFC64(0)), np.empty((DRAWS, SIZE), np.float32)
    return lambda _: generator.standard_normal(out=draws, dtype=np.float32)


def torch_normal():
    generator, draws = torch.Generator().manual_seed(0), torch.empty(DRAWS, SIZE)
    return lambda _: draws.normal_(generator=generator)


def numpy_box_muller():
    generator, half = np.random.Generator(np.random.SFC64(0)), (DRAWS, SIZE // 2)
    radius, angle, draws = (np.empty(shape, np.float32) for shape in (half, half, (DRAWS, SIZE)))

    def draw(_):
        bits = generator.integers(0, 2**64 - 1, half, dtype=np.uint64, endpoint=True)
        np.copyto(radius, bits >> np.uint64(32), casting="same_kind")
        np.copyto(angle, bits.view(np.int32)[:, ::2], casting="same_kind")
        np.sqrt(
            np.float32(-2) * np.log((radius + np.float32(0.5)) * np.float32(2.0**-32)), out=radius
        )
        np.multiply(angle, np.float32(np.pi / 2**31), out=angle)
        np.multiply(np.cos(angle), radius, out=draws[:, : SIZE // 2])
        np.multiply(np.sin(angle), radius, out=draws[:, SIZE // 2 :])

    return draw


def ours():
    scratch = Scratch()
    return lambda key: NormalStream(0, key, (SIZE,), scratch=scratch).take(DRAWS)


def nanoseconds(make, num_threads):
    draws = [make() for _ in range(num_threads)]

    def work(draw):
        for key in range(IMAGES):
            draw(key)

    times = []
    with ThreadPoolExecutor(num_threads) as pool:
        list(pool.map(work, draws))
        for _ in range(REPEATS):
            started = time.perf_counter()
            list(pool.map(work, draws))
            times.append(time.perf_counter() - started)
    return statistics.median(times) / IMAGES / DRAWS / SIZE * 1e9


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(f"{'ns per value':<20}{'1 thread':>10}{f'{num_cores()} threads':>12}")
    for make in (numpy_ziggurat, torch_normal, numpy_box_muller, ours):
        print(
            f"{make.__name__:<20}{nanoseconds(make, 1):>10.2f}"
            f"{nanoseconds(make, num_cores()):>12.2f}"
        )
