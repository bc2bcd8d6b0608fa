"""Detection methods of `wobbliness bench --families`: ours, and the loop as each was published.

Both sides do all that the method asks for: perturbed copies, forward passes, the statistic of each
image. The loops are written from the published algorithms, in eager torch on all cores.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from wobbliness.bench.families import AMPLIFIED_LAYERS, has_batch_norms, overlays_of
from wobbliness.bench.published_corruptions import corrupted_picture
from wobbliness.perturbations import Amplify, Corrupt, Scale, Superpose
from wobbliness.perturbations.pictures.corrupt import KINDS, SEVERITIES
from wobbliness.sampling.measure import measure, sweep
from wobbliness.sampling.readouts import (
    agreement,
    breaking_severity,
    mean_entropy,
    retained_confidence,
)

STRIP_OVERLAYS = 100
SCALE_UP_FACTORS = (3, 5, 7, 9, 11)
# Images of one batch as the authors' code has it: of STRIP the default of Keras's `predict`.
STRIP_BATCH, SCALE_UP_BATCH, TECO_BATCH, IBD_PSC_BATCH = 32, 100, 256, 128

Detection = Callable[[np.ndarray], np.ndarray]
"""Returns the statistic of each image `(N, C, H, W)`, as `(N,)`."""

MakeDetection = Callable[[nn.Module, tuple[int, ...]], Detection]
CorruptPicture = Callable[[np.ndarray, str, int, np.random.Generator], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Method:
    """A detection method with both sides of its comparison.

    Attributes:
        name: as published.
        passes: forward passes for each image.
        ours: makes this package's side from a network and the shape of an image.
        loop: makes the published one.
    """

    name: str
    passes: int
    ours: MakeDetection
    loop: MakeDetection


def strip(network: nn.Module, shape: tuple[int, ...]) -> Detection:
    """Returns the mean entropy of the softmax under superposed images."""
    perturbation = Superpose(overlays_of(shape, STRIP_OVERLAYS), mix="sum")

    def run(images: np.ndarray) -> np.ndarray:
        votes = measure(network, images, perturbation, STRIP_OVERLAYS, scores="logits")
        # From nats to the bits of the paper.
        return np.asarray(mean_entropy(votes) / np.log(2))

    return run


def strip_loop(network: nn.Module, shape: tuple[int, ...]) -> Detection:
    """Returns STRIP (Gao et al. 2019): one image at a time, its overlays added one by one."""
    network, overlays = _as_published(network), overlays_of(shape, STRIP_OVERLAYS).images
    rng = np.random.default_rng(0)

    @torch.inference_mode()
    def run(images: np.ndarray) -> np.ndarray:
        entropies = []
        for image in images:
            chosen = rng.permutation(len(overlays))
            # a saturating sum of two pictures
            mixed = np.stack([np.clip(image + overlays[each], 0, 1) for each in chosen])
            batches = torch.split(torch.from_numpy(mixed), STRIP_BATCH)
            scores = torch.cat([torch.softmax(network(batch), 1) for batch in batches]).numpy()
            # 0 log 0 is NaN in floats, and 0 in an entropy.
            entropies.append(-np.nansum(scores * np.log2(scores)) / len(chosen))
        return np.array(entropies)

    return run


def scale_up(network: nn.Module, shape: tuple[int, ...]) -> Detection:  # noqa: ARG001
    """Returns the share of factors under which the prediction stays."""
    perturbation = Scale(*SCALE_UP_FACTORS)

    def run(images: np.ndarray) -> np.ndarray:
        return agreement(measure(network, images, perturbation, keep_clean=True))

    return run


def scale_up_loop(network: nn.Module, shape: tuple[int, ...]) -> Detection:  # noqa: ARG001
    """Returns SCALE-UP (Guo et al. 2023): batch by batch, factor by factor."""
    network = _as_published(network)

    # Gradients are recorded, as by the authors' code.
    def run(images: np.ndarray) -> np.ndarray:
        shares = []
        for batch in torch.split(torch.from_numpy(images), SCALE_UP_BATCH):
            clean = network(batch).argmax(1)
            same = torch.zeros(len(batch))
            for factor in SCALE_UP_FACTORS:
                same += network(torch.clamp(batch * factor, 0, 1)).argmax(1) == clean
            shares.append(same / len(SCALE_UP_FACTORS))
        return torch.cat(shares).numpy()

    return run


def teco(network: nn.Module, shape: tuple[int, ...]) -> Detection:  # noqa: ARG001
    """Returns the standard deviation, over corruptions, of the severity that changes the label."""
    perturbations = [Corrupt(kind, (severity,)) for kind in KINDS for severity in SEVERITIES]

    def run(images: np.ndarray) -> np.ndarray:
        votes = sweep(network, images, perturbations, draws=1, keep_clean=True).votes
        # Kind by kind, so that each run of severities is the ladder of one kind.
        ladders = [
            votes[first : first + len(SEVERITIES)]
            for first in range(0, len(votes), len(SEVERITIES))
        ]
        return np.asarray(np.std([breaking_severity(ladder) for ladder in ladders], axis=0))

    return run


def teco_loop(
    network: nn.Module,
    shape: tuple[int, ...],  # noqa: ARG001
    corrupted: CorruptPicture = corrupted_picture,
) -> Detection:
    """Returns TeCo (Liu et al. 2023): all images corrupted one by one, then batch by batch."""
    network = _as_published(network)
    rng = np.random.default_rng(0)

    # Stored as pictures, read by a loader, gradients recorded: as by the authors' code.
    def labels(pictures: list[np.ndarray]) -> np.ndarray:
        tensors: Any = [_as_tensor(picture) for picture in pictures]
        loader: DataLoader[torch.Tensor] = DataLoader(tensors, TECO_BATCH)
        return torch.cat([network(batch).argmax(1) for batch in loader]).numpy()

    def run(images: np.ndarray) -> np.ndarray:
        stored = list((images * 255).round().astype(np.uint8))
        clean = labels(stored)
        # One past the last severity where the label never changes.
        first = np.full((len(KINDS), len(images)), len(SEVERITIES) + 1)
        for row, kind in enumerate(KINDS):
            # From the strongest down: the last one written is the least that changes the label.
            for severity in reversed(SEVERITIES):
                made = [corrupted(picture, kind, severity, rng) for picture in stored]
                first[row][labels(made) != clean] = severity
        return np.asarray(first.std(axis=0))

    return run


def _as_tensor(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture).to(torch.float32) / 255


def _as_published(network: nn.Module) -> nn.Module:
    """Returns a copy as published loops have it, with the channels first in memory."""
    # A copy, since our side is timed with the network as it is.
    own = copy.deepcopy(network)
    own.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return own


def ibd_psc(network: nn.Module, shape: tuple[int, ...]) -> Detection:  # noqa: ARG001
    """Returns the mean probability of the prediction over amplified networks."""

    def run(images: np.ndarray) -> np.ndarray:
        votes = measure(network, images, Amplify(AMPLIFIED_LAYERS), scores="logits")
        return retained_confidence(votes)

    return run


def ibd_psc_loop(network: nn.Module, shape: tuple[int, ...]) -> Detection:  # noqa: ARG001
    """Returns IBD-PSC (Hou et al. 2024): deep copies of the network, batch by batch."""
    made, network = Amplify(AMPLIFIED_LAYERS), _as_published(network)
    # Copied once and used again: making them does not count.
    members = [_amplified(network, made.layers + j, made.factor) for j in range(made.members)]

    @torch.inference_mode()
    def run(images: np.ndarray) -> np.ndarray:
        means = []
        for batch in torch.split(torch.from_numpy(images), IBD_PSC_BATCH):
            label = network(batch).argmax(1, keepdim=True)
            # Of the class that the unchanged network predicts.
            retained = [member(batch).softmax(1).gather(1, label) for member in members]
            means.append(torch.cat(retained, 1).mean(1))
        return torch.cat(means).numpy()

    return run


def _amplified(network: nn.Module, layers: int, factor: float) -> nn.Module:
    """Returns a copy whose last batch normalisations have other scales and shifts."""
    member = copy.deepcopy(network)
    norms = [part for part in member.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms[-layers:]:
        # Both, so that the output is multiplied, as by our gates.
        norm.weight.data *= factor
        norm.bias.data *= factor
    return member


def methods_of(network: nn.Module) -> tuple[Method, ...]:
    """Returns the methods that a network can be judged with."""
    return (*METHODS, IBD_PSC) if has_batch_norms(network) else METHODS


# One pass more than members: the clean prediction.
IBD_PSC = Method(
    name="IBD-PSC", passes=Amplify(AMPLIFIED_LAYERS).members + 1, ours=ibd_psc, loop=ibd_psc_loop
)
METHODS = (
    Method(name="STRIP", passes=STRIP_OVERLAYS, ours=strip, loop=strip_loop),
    Method(name="SCALE-UP", passes=len(SCALE_UP_FACTORS) + 1, ours=scale_up, loop=scale_up_loop),
    Method(name="TeCo", passes=len(KINDS) * len(SEVERITIES) + 1, ours=teco, loop=teco_loop),
)
