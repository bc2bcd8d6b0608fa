"""Samples per second of training on one thread: the plain loop, and the product's own.

The plain loop is eager, contiguous and float32, with Adam as it comes; both take random batches of
128 synthetic images. Each round times one after the other, and the ratio is the median of the
rounds' ratios, so that other work on the machine meets both. With --accuracy, the clean accuracy of
both precisions on real images instead, three seeds each (minutes; needs Fashion-MNIST). Run: python
benchmarks/training_speed.py [--accuracy]
"""

import statistics
import sys
import time
from dataclasses import replace
from unittest import mock

import numpy as np
import torch
from torch import nn

from wobbliness.classifiers.torch_module import torch_threads
from wobbliness.runtime.progress import ignore_progress
from wobbliness.study.recipes import digits
from wobbliness.study.specs import NetworkSpec
from wobbliness.study.training import train as training
from wobbliness.study.training.data import ImageData, Split, load_data
from wobbliness.study.training.networks import build_network

BATCH, REPEATS, SEEDS, ACCURACY_IMAGES = 128, 3, 3, 20_000
NETWORKS = {
    "small_cnn": ((1, 28, 28), 16),
    "large_cnn": ((1, 28, 28), 10),
    "resnet18_width16": ((3, 32, 32), 4),
    "resnet18": ((3, 32, 32), 1),
}


def spec_of(architecture, dataset):
    common = {
        "epochs": 1,
        "batch_size": BATCH,
        "learning_rate": 1e-3,
        "threat": None,
        "trigger": None,
        "seed": 0,
    }
    return NetworkSpec(dataset=dataset, architecture=architecture, **common)


def plain_loop(network, images, labels, num_steps):
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    network.train()
    for _ in range(num_steps):
        batch = torch.randperm(len(images))[:BATCH]
        loss = nn.functional.cross_entropy(network(images[batch]), labels[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        loss.item()


def seconds(loop, *arguments):
    started = time.perf_counter()
    loop(*arguments)
    return time.perf_counter() - started


def compare(architecture):
    shape, num_steps = NETWORKS[architecture]
    images = torch.rand(BATCH * num_steps, *shape, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(len(images)) % 10
    ours, plain = (build_network(architecture, shape, 10, seed=0) for _ in range(2))
    plain.to(memory_format=torch.contiguous_format)
    sides = (
        (plain_loop, plain, images, labels, num_steps),
        (training._fit, ours, images, labels, spec_of(architecture, "synthetic"), ignore_progress),
    )
    with torch_threads(training.THREADS):
        # the first warms up
        _, *rounds = [[seconds(*side) for side in sides] for _ in range(1 + REPEATS)]
    rates = [len(images) / statistics.median(times) for times in zip(*rounds, strict=True)]
    ratio = statistics.median(first / second for first, second in rounds)
    print(f"{architecture:<18}{rates[0]:>10,.0f}{rates[1]:>10,.0f}{ratio:>7.2f}", flush=True)


def accuracies(spec, data):
    for precision in ("float32", "bfloat16"):
        with mock.patch.object(training, "training_precision", return_value=precision):
            runs = [
                training.train_network(replace(spec, seed=seed), data, progress=ignore_progress)
                for seed in range(SEEDS)
            ]
        values = np.array([run.clean_accuracy for run in runs])
        print(
            f"{spec.dataset} {spec.architecture} {precision}: "
            f"{values.round(4).tolist()}, mean {values.mean():.4f}",
            flush=True,
        )


def compare_accuracies():
    accuracies(digits().parameter_networks[0], load_data("digits"))
    whole = load_data("fashion_mnist")
    train = Split(
        images=whole.train.images[:ACCURACY_IMAGES],
        labels=whole.train.labels[:ACCURACY_IMAGES],
        num_classes=10,
    )
    accuracies(
        spec_of("large_cnn", whole.name), ImageData(name=whole.name, train=train, test=whole.test)
    )


def compare_speeds():
    print(f"samples per second on one thread; ours in {training.training_precision()}")
    print(f"{'network':<18}{'plain':>10}{'ours':>10}{'ratio':>7}")
    for architecture in NETWORKS:
        compare(architecture)


if __name__ == "__main__":
    compare_accuracies() if "--accuracy" in sys.argv[1:] else compare_speeds()
