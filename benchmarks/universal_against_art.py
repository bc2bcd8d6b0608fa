"""Universal perturbations of ours and of the Adversarial Robustness Toolbox (ART).

They are compared by the share of images fooled and by seconds. Crafted on 500 training images of a
study's first poisoned network, counted on these and on 1000 test images, undisturbed by the
trigger. ART goes image by image and takes minutes for a pass, so it makes one pass at the last
bound of each norm alone; more bounds with `all`. Run: python benchmarks/universal_against_art.py
runs/fashion-mnist [all]
"""

import logging
import random
import sys
import time
from pathlib import Path

import numpy as np
import torch

from wobbliness.attacks.universal_perturbation import (
    MAX_DEEPFOOL_STEPS,
    OVERSHOOT,
    craft_universal_perturbation,
)
from wobbliness.classifiers.torch_module import torch_threads
from wobbliness.study.records.record import read_recipe
from wobbliness.study.specs import cell_name
from wobbliness.study.training.data import load_data
from wobbliness.study.training.saved_networks import load_network
from wobbliness.study.training.train import predict

CRAFTING, FRESH, PASSES, RATE = 500, 1000, 10, 0.8
BOUNDS = {np.inf: (0.05, 0.1, 0.2), 2.0: (1.0, 2.0, 4.0)}


def some(split, num_images):
    return split.images[np.random.default_rng(0).permutation(len(split.images))[:num_images]]


def share_fooled(network, images, values):
    return (predict(network, np.clip(images + values, 0, 1)) != predict(network, images)).mean()


def ours(network, images, norm, bound):
    crafted = craft_universal_perturbation(
        network, images, norm=norm, bound=bound, fooling_rate=RATE, max_passes=PASSES
    )
    return crafted.values, crafted.num_passes


def art(network, images, norm, bound):
    from art.attacks.evasion import UniversalPerturbation
    from art.estimators.classification import PyTorchClassifier

    loss, shape = torch.nn.CrossEntropyLoss(), images.shape[1:]
    num_classes = network[-1].out_features
    estimator = PyTorchClassifier(
        network, loss, shape, num_classes, clip_values=(0.0, 1.0), device_type="cpu"
    )
    deepfool = {"max_iter": MAX_DEEPFOOL_STEPS, "epsilon": OVERSHOOT, "verbose": False}
    options = {"delta": 1 - RATE, "max_iter": 1, "eps": bound, "norm": norm, "verbose": False}
    attack = UniversalPerturbation(estimator, attacker_params=deepfool, **options)
    random.seed(0)
    attack.generate(images)
    return attack.noise[0], 1


def line(name, craft, network, data, norm, bound):
    images = some(data.train, CRAFTING)
    started = time.perf_counter()
    values, num_passes = craft(network, images, norm, bound)
    seconds = time.perf_counter() - started
    shares = [share_fooled(network, batch, values) for batch in (images, some(data.test, FRESH))]
    return (
        f"{name:<6}{norm:>6}{bound:>7}{shares[0]:>10.3f}{shares[1]:>8.3f}"
        f"{num_passes:>8}{seconds:>9.1f}"
    )


def main(folder, every_bound):
    logging.getLogger("art").setLevel(logging.ERROR)
    spec = read_recipe(folder).effect_networks[0]
    network = load_network(folder / "networks" / f"{cell_name(spec)}.safetensors")
    data = load_data(spec.dataset)
    print(f"{'':<6}{'norm':>6}{'bound':>7}{'crafting':>10}{'test':>8}{'passes':>8}{'seconds':>9}")
    for norm, bounds in BOUNDS.items():
        for bound in bounds:
            print(line("ours", ours, network, data, norm, bound), flush=True)
        for bound in bounds if every_bound else bounds[-1:]:
            print(line("ART", art, network, data, norm, bound), flush=True)


if __name__ == "__main__":
    with torch_threads(1):
        main(Path(sys.argv[1]), sys.argv[2:] == ["all"])
