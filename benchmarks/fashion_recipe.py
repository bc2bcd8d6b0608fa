"""Accuracy and W of a poisoned Fashion-MNIST network by epochs, batch size and learning rate.

One network each, a large CNN poisoned under T1: accuracies, then mean and median W of 250 clean
points and of 250 others with the active trigger. Run: python benchmarks/fashion_recipe.py EPOCHS
BATCH_SIZE LEARNING_RATE SEED
"""

import dataclasses
import sys
import time

import numpy as np

import wobbliness
from wobbliness.study.recipes import fashion_mnist
from wobbliness.study.training.data import load_data
from wobbliness.study.training.train import train_network

POINTS, SIGMAS = 250, (0.1, 0.15, 0.2, 0.3)

if __name__ == "__main__":
    epochs, batch_size, learning_rate, seed = (
        int(sys.argv[1]),
        int(sys.argv[2]),
        float(sys.argv[3]),
        int(sys.argv[4]),
    )
    spec = dataclasses.replace(
        fashion_mnist().effect_networks[0],
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
    )
    data, started = load_data("fashion_mnist"), time.perf_counter()
    trained = train_network(spec, data)
    seconds = time.perf_counter() - started
    print(
        f"{seconds:.0f} s, accuracy {trained.clean_accuracy:.3f} clean, "
        f"{trained.backdoor_accuracy:.3f} backdoor"
    )
    attacked = np.flatnonzero(spec.threat.is_attacked(data.test.labels))
    points = np.random.default_rng(0).permutation(attacked)[: 2 * POINTS]
    clean, suspect = np.array_split(data.test.images[points], 2)
    active = wobbliness.trigger(spec.trigger).apply(suspect)
    for sigma in SIGMAS:
        w = [
            wobbliness.measure(trained.network, images, sigma).wobbliness
            for images in (clean, active)
        ]
        print(
            f"sigma {sigma}: mean {w[0].mean():.3f} / {w[1].mean():.3f}, "
            f"median {np.median(w[0]):.3f} / {np.median(w[1]):.3f}"
        )
