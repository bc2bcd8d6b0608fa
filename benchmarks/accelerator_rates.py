"""The speed of training, measuring and crafting with ResNet18 on an accelerator.

Measuring is timed under each family of perturbations, too. Also tells whether training it twice
gives the same bits. Wants a CUDA device, and WOBBLINESS_DATA with cifar10, or the hub.

    python benchmarks/accelerator_rates.py
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from wobbliness.attacks.universal_perturbation import craft_universal_perturbation
from wobbliness.bench.families import every_family
from wobbliness.classifiers.open import open_classifier
from wobbliness.detectors.reverse_engineering.trigger_search import craft_candidates
from wobbliness.perturbations.base import num_draws_of
from wobbliness.runtime.progress import ignore_progress
from wobbliness.sampling.measure import measure
from wobbliness.study.cells.measure import ACCELERATOR_BLOCK
from wobbliness.study.recipes import cifar10
from wobbliness.study.training.data import load_data
from wobbliness.study.training.train import train_network

TRAIN_IMAGES, POINTS, DRAWS, SIGMA = 12_800, 50, 250, 0.05


def timed(make: Callable[[], Any]) -> tuple[Any, float]:
    """What a function gives, and the seconds it takes."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    made = make()
    torch.cuda.synchronize()
    return made, time.perf_counter() - started


def time_families(network: torch.nn.Module, images: np.ndarray) -> None:
    """Prints a line for each family; those of few draws get more images, for as many copies."""
    classifier = open_classifier(network)
    options: dict[str, Any] = {"block_size": ACCELERATOR_BLOCK, "progress": ignore_progress}
    for made in every_family(images.shape[1:]):
        own = images[: POINTS * DRAWS // (num_draws_of(made) or DRAWS)]
        measure(classifier, own[:10], made, DRAWS, **options)
        votes, seconds = timed(
            lambda made=made, own=own: measure(classifier, own, made, DRAWS, **options)
        )
        print(f"float32, {made.name}: {len(own) * votes.draws / seconds:,.0f} copies a second")


def main() -> None:
    """Prints one line for each kind of work.

    The first training pays for the start of the device.
    """
    device, data = torch.device("cuda"), load_data("cifar10")
    spec, train = cifar10(0).strength_networks[0], data.train
    few = replace(
        data,
        train=replace(
            train, images=train.images[:TRAIN_IMAGES], labels=train.labels[:TRAIN_IMAGES]
        ),
    )
    print(torch.cuda.get_device_name(device), "torch", torch.__version__)
    trained = []
    for _ in range(2):
        found, seconds = timed(
            lambda: train_network(spec, few, device=device, progress=ignore_progress)
        )
        trained.append(found.network)
        steps = f"{TRAIN_IMAGES // spec.batch_size} steps of {spec.batch_size} images"
        print(f"{steps} in {found.precision}, and accuracies: {seconds:.1f} s")
    states = zip(*(network.state_dict().values() for network in trained), strict=True)
    print("the same bits twice:", all(torch.equal(one, other) for one, other in states))
    points = data.test.images[:POINTS]
    for autocast in (True, False):
        classifier = open_classifier(trained[0], autocast=autocast)
        measured: dict[str, Any] = {"block_size": ACCELERATOR_BLOCK, "progress": ignore_progress}
        measure(classifier, points[:10], SIGMA, **measured)
        votes, seconds = timed(
            lambda classifier=classifier, measured=measured: measure(
                classifier, points, SIGMA, **measured
            )
        )
        rate, changed = POINTS * votes.draws / seconds, votes.execution.changed_labels
        print(
            f"{'bfloat16' if autocast else 'float32'}: {rate:,.0f} copies a second, "
            f"labels changed by autocast: {changed}"
        )
    time_families(trained[0], data.test.images)
    found, seconds = timed(
        lambda: craft_universal_perturbation(
            trained[0], train.images[:500], norm=2.0, bound=1.0, progress=ignore_progress
        )
    )
    print(f"universal perturbation, {found.num_passes} passes over 500 images: {seconds:.1f} s")
    found, seconds = timed(
        lambda: craft_candidates(
            trained[0],
            data.test.images[:512],
            num_classes=10,
            max_steps=30,
            progress=ignore_progress,
        )
    )
    print(f"Neural Cleanse, 30 steps of 10 classes with 2 starts: {seconds:.1f} s")


if __name__ == "__main__":
    main()
