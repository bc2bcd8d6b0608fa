"""Parts that cells share: their context, loaded networks, and the order of test points."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from wobbliness.classifiers.compile.export import declare_structure
from wobbliness.runtime.progress import Progress
from wobbliness.sampling.votes import Votes
from wobbliness.study.recipes import Recipe
from wobbliness.study.records.integrity import verified_weights, weights_file
from wobbliness.study.specs import (
    DetectSpec,
    LadderSpec,
    NetworkSpec,
    PerturbSpec,
    Spec,
    cell_name,
)
from wobbliness.study.training.checkpoints import Checkpoint
from wobbliness.study.training.data import ImageData, Split
from wobbliness.study.training.device import Place
from wobbliness.study.training.networks import structure
from wobbliness.study.training.saved_networks import load_network

ApplyPattern = Callable[[np.ndarray], np.ndarray]
"""Puts a pattern on images `(N, C, H, W)`."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """Place where a cell is run, and whom it tells."""

    out: Path
    recipe: Recipe
    place: Place
    progress: Progress
    checkpoint: Checkpoint


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """Result of a cell: values for its record, and a table."""

    results: Mapping[str, object]
    table: pd.DataFrame


def spec_file(out: Path, spec: Spec) -> Path:
    """Returns the path of the network or crafted pattern of a cell in a study folder."""
    return weights_file(out, cell_name(spec))


def trained_network(context: Context, spec: NetworkSpec) -> nn.Sequential:
    """Returns the network of a finished training, verified by its record's checksum."""
    path = verified_weights(context.out, cell_name(spec))
    return _network(path, path.stat().st_mtime_ns, context.place.torch_device)


@lru_cache(maxsize=4)
def _network(
    path: Path,
    changed: int,  # noqa: ARG001  # a file that was written again is another network
    device: torch.device,
) -> nn.Sequential:
    """Loads a network, kept from one cell of a process to the next with its compiled graph."""
    network = load_network(path).to(device)
    declare_structure(network, structure(network))
    return network


def point_order(network: NetworkSpec, data: ImageData, seed: int) -> np.ndarray:
    """Draws the random order in which test points that may be attacked are taken."""
    labels, threat = data.test.labels, network.threat
    eligible = (
        np.arange(len(labels)) if threat is None else np.flatnonzero(threat.is_attacked(labels))
    )
    return np.random.default_rng(np.random.SeedSequence(seed)).permutation(eligible)


@dataclass(frozen=True, kw_only=True, eq=False)
class Points:
    """Test points, none of them twice: to fit a detector on, clean, and with the trigger on."""

    to_fit: np.ndarray
    clean: np.ndarray
    triggered: np.ndarray
    clean_indices: np.ndarray
    triggered_indices: np.ndarray


def clean_and_triggered(spec: PerturbSpec | DetectSpec | LadderSpec, data: ImageData) -> Points:
    """Draws test points: clean ones of all classes, triggered ones of those that are attacked.

    Raises:
        ValueError: the test split has too few points.
    """
    images, labels, threat = data.test.images, data.test.labels, spec.network.threat
    order = np.random.default_rng(np.random.SeedSequence(spec.seed)).permutation(len(labels))
    to_fit, clean, rest = np.split(order, [spec.num_points, 2 * spec.num_points])
    attacked = rest if threat is None else rest[threat.is_attacked(labels[rest])]
    if spec.attack is None or len(attacked) < spec.num_points:
        raise ValueError(
            f"expected at most {len(attacked)} test points to put a trigger on, got "
            f"{spec.num_points}"
        )
    triggered = attacked[: spec.num_points]
    return Points(
        to_fit=images[to_fit],
        clean=images[clean],
        triggered=spec.attack.apply(images[triggered]),
        clean_indices=clean,
        triggered_indices=triggered,
    )


def sample(split: Split, num_images: int, seed: int) -> Split:
    """Draws images of a split at random, each at most once."""
    order = np.random.default_rng(np.random.SeedSequence(seed)).permutation(len(split.labels))
    chosen = order[:num_images]
    return Split(
        images=split.images[chosen], labels=split.labels[chosen], num_classes=split.num_classes
    )


def vote_columns(votes: Votes) -> dict[str, np.ndarray]:
    """Returns the columns of a table that hold the votes for each class."""
    return {f"votes_{index}": own for index, own in enumerate(votes.counts.T)}
