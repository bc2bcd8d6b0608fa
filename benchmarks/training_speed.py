"""Training: the plain loop against the product's, and the accuracy of both, in one run.

The plain loop is eager, contiguous, float32, with Adam as it comes; both use one thread and batches of 128 random images.
Run: python benchmarks/training_speed.py
"""

import copy
import statistics
import time
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from wobbliness.classifiers.torch_module import torch_threads
from wobbliness.study import training
from wobbliness.study.data import ImageData, Split, load_data
from wobbliness.study.networks import build_network
from wobbliness.study.recipes import NetworkSpec, digits

BATCH, REPEATS, ACCURACY_IMAGES = 128, 3, 20_000
NETWORKS = {
    "small_cnn": ((1, 28, 28), 24),
    "large_cnn": ((1, 28, 28), 10),
    "resnet18_width16": ((3, 32, 32), 4),
    "resnet18": ((3, 32, 32), 1),
}


def plain_loop(network, images, labels, batches):
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    network.train()
    for batch in batches:
        loss = nn.functional.cross_entropy(network(images[batch]), labels[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        loss.item()


def seconds(function):
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def compare(architecture):
    shape, steps = NETWORKS[architecture]
    images = torch.rand(BATCH * steps, *shape, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(len(images)) % 10
    network = build_network(architecture, shape, 10, seed=0)
    plain = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    spec = NetworkSpec(
        dataset="", architecture=architecture, epochs=1, batch_size=BATCH, learning_rate=1e-3, threat=None, trigger=None, seed=0
    )
    order = torch.split(torch.randperm(len(images)), BATCH)

    def ours():
        training._fit(network, images, labels, spec, lambda *_: None)

    def theirs():
        plain_loop(plain, images, labels, order)

    with torch_threads(training.THREADS):
        ours(), theirs()
        rounds = [(seconds(ours), seconds(theirs)) for _ in range(REPEATS)]
    rates = [len(images) / statistics.median(side) for side in zip(*rounds, strict=True)]
    print(
        f"{architecture:<18}{rates[0]:>10,.0f}{rates[1]:>10,.0f}{statistics.median(b / a for a, b in rounds):>7.2f}", flush=True
    )


def accuracies(spec, data):
    found = []
    for precision in (training.training_precision(), "float32"):
        training.training_precision = lambda precision=precision: precision
        runs = [training.train_network(replace(spec, seed=seed), data, progress=lambda *_: None) for seed in range(3)]
        found.append((precision, [run.clean_accuracy for run in runs]))
    for precision, values in found:
        print(
            f"{spec.dataset} {spec.architecture} {precision}: {np.round(values, 4).tolist()}, mean {np.mean(values):.4f}",
            flush=True,
        )
    training.training_precision = lambda: found[0][0]


if __name__ == "__main__":
    print(f"samples per second on one core; ours in {training.training_precision()}")
    print(f"{'network':<18}{'ours':>10}{'plain':>10}{'ratio':>7}")
    for name in NETWORKS:
        compare(name)
    accuracies(digits().effect_networks[0], load_data("digits"))
    fashion = load_data("fashion_mnist")
    some = Split(images=fashion.train.images[:ACCURACY_IMAGES], labels=fashion.train.labels[:ACCURACY_IMAGES], num_classes=10)
    spec = NetworkSpec(
        dataset="fashion_mnist",
        architecture="large_cnn",
        epochs=1,
        batch_size=BATCH,
        learning_rate=1e-3,
        threat=None,
        trigger=None,
        seed=0,
    )
    accuracies(spec, ImageData(name="fashion_mnist", train=some, test=fashion.test))
