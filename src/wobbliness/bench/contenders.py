"""Contenders of `wobbliness bench`: ours, the loops others use, the bare forward pass."""

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import nn

import wobbliness.classifiers.compile.export as compiled
from wobbliness.perturbations.base import Perturbation
from wobbliness.runtime.threads import num_cores
from wobbliness.sampling.measure import measure

SIGMA = 0.15
ART_BATCHES = (128, 250, 1000)
BARE_BLOCKS = (16, 25, 32, 50, 250)

Contender = Callable[[np.ndarray], object]
"""Does its work for images `(N, C, H, W)`, `draws` forward passes for each."""


def ours(
    network: nn.Module, draws: int, *, device: str, perturbation: float | Perturbation = SIGMA
) -> Contender:
    """Returns `wobbliness.measure`, end to end."""
    # On the CPU the network itself: `measure` leaves it as it was.
    own = network if device == "cpu" else copy.deepcopy(network).to(device)

    def run(images: np.ndarray) -> None:
        measure(own, images, perturbation, draws=draws)

    return run


def checked(network: nn.Module, draws: int, *, precisions: list[str]) -> Contender:
    """Returns `wobbliness.measure` in checked low precision, on the CPU.

    Args:
        network: the network.
        draws: forward passes of each image.
        precisions: gets, of each run, what was done in words.
    """

    def run(images: np.ndarray) -> None:
        votes = measure(network, images, SIGMA, draws=draws, precision="checked")
        precisions.extend(str(execution.precision) for execution in votes.executions)

    return run


def smoothing_loop(network: nn.Module, draws: int, *, device: str) -> Contender:
    """Returns the loop of randomized smoothing as Cohen et al. (2019) publish it.

    Eager, contiguous, one image at a time. `_sample_noise` of their `core.py`: repeat the input,
    add `randn_like` noise, take the arg-max, count in Python.
    """
    own = copy.deepcopy(network).to(device)
    own.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]

    @torch.inference_mode()
    def run(images: np.ndarray) -> None:
        for image in torch.from_numpy(images).to(device):
            batch = image.repeat((draws, 1, 1, 1))
            noise = torch.randn_like(batch) * SIGMA
            predictions = own(batch + noise).argmax(1)
            counts = np.zeros(10, dtype=int)  # one by one in Python, as published
            for label in predictions.cpu().numpy():
                counts[label] += 1

    return run


def art(network: nn.Module, draws: int, *, batch_size: int, device: str) -> Contender:
    """Returns `PyTorchRandomizedSmoothing.predict` of the Adversarial Robustness Toolbox.

    Raises:
        ImportError: the extra `bench` is not installed.
    """
    from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing

    # A copy: a change of the memory format would slow the other contenders.
    own = copy.deepcopy(network)
    own.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    estimators: dict[tuple[int, ...], Any] = {}

    def run(images: np.ndarray) -> None:
        shape = images.shape[1:]
        # Once for each shape, in the warm-up: making it does not count.
        if shape not in estimators:
            estimators[shape] = PyTorchRandomizedSmoothing(
                own,
                nn.CrossEntropyLoss(),
                shape,
                10,
                sample_size=draws,
                scale=SIGMA,
                device_type="cpu" if device == "cpu" else "gpu",
            )
        estimators[shape].predict(images, batch_size=batch_size)

    return run


def bare_forward(network: nn.Module, draws: int, *, block_size: int, device: str) -> Contender:
    """Returns the compiled forward pass alone, on every core: no noise, no counting.

    On an accelerator it is the eager one.
    """
    if device != "cpu":
        return _bare_on_device(copy.deepcopy(network).to(device), draws, block_size)

    def run(images: np.ndarray) -> None:
        graph = compiled.compile_module(network, images).graph
        if graph is None:
            raise ValueError("expected a network that can be compiled, got one that cannot")
        # The same block each time: nothing but the network is timed.
        block = np.resize(images, (block_size, *images.shape[1:]))
        passes = len(images) * draws // block_size
        # one thread a core, each with every num_cores()-th block
        share = [range(core, passes, num_cores()) for core in range(num_cores())]
        with ThreadPoolExecutor(num_cores()) as pool:
            list(pool.map(lambda mine: [graph.run(block, block_size) for _ in mine], share))

    return run


def _bare_on_device(network: nn.Module, draws: int, block_size: int) -> Contender:
    @torch.inference_mode()
    def run(images: np.ndarray) -> None:
        block = torch.from_numpy(np.resize(images, (block_size, *images.shape[1:]))).to(
            next(network.parameters()).device
        )
        for _ in range(len(images) * draws // block_size):
            labels = network(block).argmax(1)
        # Kernels are queued: this waits for the last of them.
        labels.cpu()

    return run


def sgemm(size: int, *, device: str) -> Callable[[], float]:
    """Returns a float32 matrix product on all cores; each call returns its operations."""
    left, right = (torch.rand(size, size, device=device) for _ in range(2))

    def run() -> float:
        torch.mm(left, right).sum().item()  # waits for the device
        return 2.0 * size**3

    return run
