"""How well W under each family tells triggered from clean inputs, one by one.

    python benchmarks/perturbation_families.py [--draws 100]     # five minutes, Fashion-MNIST

One network of the recipe's T1 (checkerboard, a large CNN). Clean inputs are of all classes; those
with the trigger were of another class than the target. Overlays, and the images that levels are
matched on, are others. Low W is suspicious.
"""

import argparse
from functools import partial

import numpy as np

import wobbliness
from wobbliness.perturbations import (
    Affine,
    Blur,
    BoxMix,
    BoxNoise,
    CellMix,
    Contrast,
    Corrupt,
    Elastic,
    Flow,
    Gaussian,
    KeepBox,
    KeepFeature,
    Laplace,
    Occlude,
    SaltAndPepper,
    Scale,
    Superpose,
    Uniform,
)
from wobbliness.perturbations.mixing.overlays import Overlays
from wobbliness.runtime.progress import ignore_progress
from wobbliness.sampling.matching import matched
from wobbliness.sampling.readouts import agreement
from wobbliness.study.recipes import fashion_mnist
from wobbliness.study.training.data import load_data
from wobbliness.study.training.train import train_network

NUM_CLEAN, NUM_TRIGGERED, NUM_OVERLAYS, NUM_MATCHED = 300, 181, 100, 200


def families(match, overlays):
    """Levels that are fixed first, then those that change a fifth of the clean labels."""
    return [
        *(Gaussian(0.1), Gaussian(0.2), Superpose(overlays), Superpose(overlays, mix="sum")),
        *(BoxMix(overlays), KeepBox(overlays), CellMix(overlays), Scale(3, 5, 7, 9, 11)),
        *(Occlude(0.5), Contrast(0.75, 0.5, 0.4, 0.3, 0.15), Blur(0.5, 1, 1.5, 2, 3)),
        *(Corrupt("zoom-blur"), match(Gaussian), match(Uniform), match(Laplace)),
        *(match(SaltAndPepper), match(lambda level: KeepFeature(1 - level)), match(Flow)),
        *(match(BoxNoise, most=4.0), match(lambda level: CellMix(overlays, level))),
        match(lambda level: BoxMix(overlays, level, level)),
        match(lambda level: Affine(level, 180 * level, 0.9 * level)),
        match(lambda level: Elastic(level, width=3), most=128.0),
    ]


def true_positives(clean, triggered, rate):
    """Share of triggered inputs below the quantile of the clean ones; ties are not counted."""
    return float((triggered < np.quantile(clean, rate, method="lower")).mean())


def main():
    """Trains, measures, prints a line for each family."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--draws", type=int, default=100)
    draws = parser.parse_args().draws
    spec, data = fashion_mnist().effect_networks[0], load_data("fashion_mnist")
    trained = train_network(spec, data, progress=ignore_progress)
    print(f"accuracy {trained.clean_accuracy:.3f} clean, {trained.backdoor_accuracy:.3f} backdoor")
    order = np.random.default_rng(0).permutation(len(data.test.images))
    is_attacked = spec.threat.is_attacked(data.test.labels)
    clean, rest = order[:NUM_CLEAN], order[NUM_CLEAN:]
    overlays, rest = rest[:NUM_OVERLAYS], rest[NUM_OVERLAYS:]
    to_match, rest = rest[:NUM_MATCHED], rest[NUM_MATCHED:]
    to_trigger = rest[is_attacked[rest]][:NUM_TRIGGERED]
    images = data.test.images
    triggered = spec.attack.apply(images[to_trigger])
    match = partial(matched, classifier=trained.network, clean=images[to_match], draws=20)
    measure = partial(wobbliness.measure, trained.network, progress=ignore_progress)
    print(f"{'':32} {'AUROC':>6} {'TPR 1 %':>8} {'TPR 5 %':>8} {'shift':>6}")
    for made in families(match, Overlays(images[overlays])):
        one = measure(images[clean], made, draws, keep_clean=True)
        other = measure(triggered, made, draws)
        w = one.wobbliness, other.wobbliness
        is_triggered = np.repeat([False, True], [len(w[0]), len(w[1])])
        auc = wobbliness.roc_curve(is_triggered, -np.concatenate(w)).auc
        name = made.name.rpartition("-")[0] if hasattr(made, "overlays") else made.name
        print(
            f"{name[:32]:32} {auc:>6.3f} {true_positives(*w, 0.01):>8.2f} "
            f"{true_positives(*w, 0.05):>8.2f} {1 - agreement(one).mean():>6.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
