"""Backdoors on the digits at several settings, by mean W clean / active.

The means are over all test points of other classes. Run: python benchmarks/digits_backdoors.py
"""

import wobbliness
from wobbliness.attacks.poisoning import t1
from wobbliness.study.specs import NetworkSpec
from wobbliness.study.training.data import load_data
from wobbliness.study.training.train import train_network, triggered_accuracy

SETTINGS = [
    ("small_cnn", 20, 2e-3, 5),
    ("small_cnn", 20, 2e-3, 7),
    ("small_cnn", 20, 2e-3, 8),
    ("small_cnn", 60, 2e-3, 5),
    ("large_cnn", 15, 1e-3, 5),
    ("large_cnn", 15, 1e-3, 0),
]
SIGMAS, DRAWS, SEEDS = (0.1, 0.15, 0.2), 50, (0, 1, 2)


def ratios(network, data, target_class):
    points = data.test.images[data.test.labels != target_class]
    clean = wobbliness.sweep(network, points, SIGMAS, draws=DRAWS)
    active = wobbliness.sweep(
        network, wobbliness.trigger("checkerboard").apply(points), SIGMAS, draws=DRAWS
    )
    return [clean[sigma].wobbliness.mean() / active[sigma].wobbliness.mean() for sigma in SIGMAS]


def main():
    data = load_data("digits")
    print(
        f"{'network':<10} epochs target seed   clean / active at {SIGMAS}   "
        "cross works   square works"
    )
    for architecture, epochs, learning_rate, target_class in SETTINGS:
        for seed in SEEDS:
            spec = NetworkSpec(
                dataset="digits",
                architecture=architecture,
                epochs=epochs,
                batch_size=32,
                learning_rate=learning_rate,
                threat=t1(target_class),
                trigger="checkerboard",
                seed=seed,
            )
            network = train_network(spec, data).network
            others = [
                triggered_accuracy(network, spec, data, wobbliness.trigger(name))
                for name in ("cross", "square")
            ]
            listed = ", ".join(f"{ratio:.1f}" for ratio in ratios(network, data, target_class))
            print(
                f"{architecture:<10} {epochs:>6} {target_class:>6} {seed:>4}   "
                f"{listed:<24} {others[0]:>14.0%} {others[1]:>14.0%}"
            )


if __name__ == "__main__":
    main()
