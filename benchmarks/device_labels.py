"""Labels that a device gives to noisy copies, beside those of the compiled graph on the CPU.

Run: python benchmarks/device_labels.py [--device cuda] [--short]

Networks are trained on the device for an epoch. Copies are drawn on the host, so that both sides
label the same ones; printed as JSON: the share of labels that differ, in float32 and on a card in
bfloat16, and the mean of W over inputs from the device's own draws and the host's, which are others
of the same distribution.
"""

import argparse
import copy
import json
from dataclasses import replace

import numpy as np
import torch

import wobbliness
from wobbliness.classifiers.open import open_classifier
from wobbliness.classifiers.torch_accelerator import AcceleratedClassifier
from wobbliness.runtime.progress import ignore_progress
from wobbliness.study.recipes import cifar10, digits, fashion_mnist
from wobbliness.study.training.data import load_data
from wobbliness.study.training.train import train_network

SIGMA, DRAWS, COPIES, BLOCK = 0.1, 250, 50, 250
RECIPES = {"fashion_mnist": fashion_mnist, "cifar10": cifar10}


def labels_of(classifier, images):
    """Labels of images, by blocks."""
    with classifier.session(images[:BLOCK]):
        return classifier.classify(images, BLOCK)


def compared(spec, device, num_images):
    """Trains a network, and compares both sides."""
    data = load_data(spec.dataset)
    found = train_network(spec, data, device=device, progress=ignore_progress)
    images = data.test.images[:num_images]
    noise = np.random.default_rng(0).normal(size=(COPIES, *images.shape)).astype(np.float32)
    noisy = (images + np.float32(SIGMA) * noise).reshape(-1, *images.shape[1:])
    on_device = found.network.to(device).eval()
    on_cpu = open_classifier(copy.deepcopy(on_device).to("cpu"))
    expected = labels_of(on_cpu, noisy)
    # The device's own path also where the device is the CPU, as in the short form.
    sides = {
        "float32" if not autocast else "bfloat16": AcceleratedClassifier(
            on_device, device=device, autocast=autocast
        )
        for autocast in ((False,) if device.type == "cpu" else (False, True))
    }
    changed = {
        name: float((labels_of(side, noisy) != expected).mean()) for name, side in sides.items()
    }
    measured = {"host": (on_cpu, 0), "host, another seed": (on_cpu, 1)}
    measured |= {f"device, {name}": (side, 0) for name, side in sides.items()}
    w = {
        name: float(
            wobbliness.measure(side, images, SIGMA, draws=DRAWS, seed=seed).wobbliness.mean()
        )
        for name, (side, seed) in measured.items()
    }
    return {
        "dataset": spec.dataset,
        "architecture": spec.architecture,
        "accuracy": found.clean_accuracy,
        "copies": len(noisy),
        "changed": changed,
        "mean_w": w,
    }


def main(device, *, is_short):
    """Prints the comparison of each network."""
    made = (digits,) if is_short else RECIPES.values()
    specs = [replace(recipe(0).parameter_networks[0], epochs=1) for recipe in made]
    rows = [compared(spec, device, 40 if is_short else 200) for spec in specs]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    print(json.dumps({"device": name, "sigma": SIGMA, "networks": rows}, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--short", action="store_true")
    given = parser.parse_args()
    main(torch.device(given.device), is_short=given.short)
