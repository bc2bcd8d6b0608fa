"""Certified accuracy on the digits of networks that are trained for it.

Plain, on Gaussian noise, and by SmoothAdv; clean, or with a backdoor.

    python benchmarks/smooth_adv.py [SEED ...]        # means over seeds, by default 0
"""

import sys
import time

import numpy as np

import wobbliness
from wobbliness.attacks.poisoning import t1
from wobbliness.study.specs import NetworkSpec, SmoothAdv
from wobbliness.study.training.data import load_data
from wobbliness.study.training.train import train_network

SIGMA, DRAWS, RADII = 0.25, 500, (0.25, 0.5, 0.75)
TRAININGS = {
    "plain": None,
    "noise": SmoothAdv(sigma=SIGMA, steps=0),
    "SmoothAdv 0.25": SmoothAdv(sigma=SIGMA, epsilon=0.25),
    "SmoothAdv 0.5": SmoothAdv(sigma=SIGMA, epsilon=0.5),
    "SmoothAdv 1": SmoothAdv(sigma=SIGMA, epsilon=1.0),
}

BACKDOORED = ("plain", "noise", "SmoothAdv 0.5")


def spec_of(smoothing, seed, *, is_poisoned):
    return NetworkSpec(
        dataset="digits",
        architecture="small_cnn",
        epochs=20,
        batch_size=32,
        learning_rate=2e-3,
        threat=t1(target_class=5) if is_poisoned else None,
        trigger="checkerboard" if is_poisoned else None,
        seed=seed,
        smoothing=smoothing,
    )


def row(smoothing, seed, data):
    """Accuracy, accuracy of the smoothed classifier, mean radius, certified accuracies, seconds."""
    started = time.perf_counter()
    trained = train_network(spec_of(smoothing, seed, is_poisoned=False), data)
    seconds = time.perf_counter() - started
    votes = wobbliness.measure(trained.network, data.test.images, SIGMA, draws=DRAWS)
    is_right = votes.label == data.test.labels
    radii = votes.certified_radius() * is_right
    certified = [(radii >= radius).mean() for radius in RADII]
    return [trained.clean_accuracy, is_right.mean(), radii.mean(), *certified, seconds]


def backdoor(smoothing, seed, data):
    """Accuracy, backdoor accuracy, and mean W of clean and of triggered points at sigma."""
    trained = train_network(spec_of(smoothing, seed, is_poisoned=True), data)
    points = data.test.images[data.test.labels != 5]
    triggered = wobbliness.trigger("checkerboard").apply(points)
    means = [
        wobbliness.measure(trained.network, images, SIGMA, draws=DRAWS).wobbliness.mean()
        for images in (points, triggered)
    ]
    return [trained.clean_accuracy, trained.backdoor_accuracy, *means]


def main():
    data, seeds = load_data("digits"), [int(seed) for seed in sys.argv[1:]] or [0]
    for heading, measure, names in (
        (f"accuracy, smoothed, mean radius, certified at {RADII}, seconds", row, TRAININGS),
        ("backdoor: accuracy, backdoor accuracy, mean W clean, triggered", backdoor, BACKDOORED),
    ):
        print(heading)
        for name in names:
            values = np.mean([measure(TRAININGS[name], seed, data) for seed in seeds], axis=0)
            print(f"  {name:<16}", *(f"{value:.3f}" for value in values), flush=True)


if __name__ == "__main__":
    main()
