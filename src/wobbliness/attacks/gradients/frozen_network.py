"""Torch network as a function of its images, differentiated many times.

On one thread or an accelerator.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from wobbliness.attacks.gradients.first_convolution import PixelGradients
from wobbliness.attacks.gradients.fused_pooling import pooled_convolutions
from wobbliness.classifiers.torch_module import (
    device_of,
    evaluation_mode,
    has_fast_bfloat16,
    torch_threads,
)
from wobbliness.runtime.errors import reason_of
from wobbliness.runtime.process_state import borrowed_state

GRADIENT_CHECK_BATCH = 32  # images at a time


class NoGradients(ValueError):
    """Error of a network whose loss no image can change.

    Its predictions tell nothing to a search that follows gradients.
    """


@contextmanager
def differentiable(
    network: nn.Module, examples: torch.Tensor, num_classes: int
) -> Iterator["DifferentiableNetwork"]:
    """Yields the network in evaluation mode, without gradients of its weights.

    All is set back afterwards.

    Args:
        network: gives logits `(B, K)`.
        examples: `(B, C, H, W)`, a few images to try it on, on the network's device.
        num_classes: K.

    Raises:
        ValueError: the network refuses the images or gives no logits `(B, K)` for them.
    """
    _raise_mmap_threshold()
    # Layers are fused after the network was tried out, so that its own errors are its own.
    with frozen(network), torch.enable_grad():
        forward = DifferentiableNetwork(network, examples, num_classes)
        with pooled_convolutions(network):
            yield forward


class DifferentiableNetwork:
    """Network in the memory format that it takes.

    Channels-last, or contiguous where it flattens by `view`.

    Attributes:
        device: where its parameters are, and where it takes images.
    """

    def __init__(self, network: nn.Module, examples: torch.Tensor, num_classes: int) -> None:
        # Channels-last is faster for convolutions; a network that flattens by `view` refuses it.
        self._network, self._format = network, torch.channels_last
        self.device = device_of(network)
        try:
            logits = self._tried(examples)
        except ValueError:
            self._format = torch.contiguous_format
            logits = self._tried(examples)
        if not isinstance(logits, torch.Tensor) or logits.shape != (len(examples), num_classes):
            got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
            # One score for two classes has another shape, and a way to go.
            advice = "; make it two scores, 0 and score - threshold" if _is_one(logits) else ""
            raise ValueError(
                f"expected the network to give logits ({len(examples)}, {num_classes}), got {got}"
                f"{advice}"
            )

    def __call__(self, images: torch.Tensor, *, fast: bool) -> torch.Tensor:
        """Computes logits `(B, K)` in float32.

        `fast` ones are computed in bfloat16 where its device has instructions for it.
        """
        # Logits go back to float32, so that losses and their sums are not rounded to 8 bits.
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=fast and has_fast_bfloat16(self.device)
        ):
            logits: torch.Tensor = self._network(images.contiguous(memory_format=self._format))
        return logits.float()

    def _tried(self, examples: torch.Tensor) -> object:
        try:
            with torch.no_grad():
                return self._network(examples.contiguous(memory_format=self._format))
        except (RuntimeError, IndexError, TypeError) as error:
            raise ValueError(
                f"expected images that the network accepts, got {tuple(examples.shape[1:])} each: "
                f"{reason_of(error)}"
            ) from error


def _is_one(answer: object) -> bool:
    return isinstance(answer, torch.Tensor) and answer.shape[1:].numel() == 1


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Sets evaluation mode, one thread for a fixed order of sums, and no gradients of the weights.

    All is set back afterwards.
    """
    with borrowed_state():
        # Remembered, so that exactly these are set back.
        learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
        try:
            for parameter in learned:
                parameter.requires_grad_(False)
            # One thread adds in one order, whatever the number of cores.
            with evaluation_mode(network), torch_threads(1), PixelGradients():
                yield
        finally:
            for parameter in learned:
                parameter.requires_grad_(True)


def check_gradients(
    scores: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, classes: Iterable[int]
) -> None:
    """Checks that the loss of one image and one class changes with the image.

    Args:
        scores: of a batch, `(B, K)`, with gradients enabled.
        images: `(N, C, H, W)`.
        classes: to look for, by the cross entropy of each.

    Raises:
        NoGradients: there is none: the network stops the gradients, cannot be differentiated, or
            has zeros throughout; or those of an image before it are NaN or infinite.
    """
    targets, why = list(classes), "they are zero for all images and classes"
    for batch in torch.split(images, GRADIENT_CHECK_BATCH):
        # A leaf of its own, so that the caller's images get no gradients.
        points = batch.detach().clone().requires_grad_()
        try:
            logits = scores(points)
            # The first gradient that is not zero answers: most networks take one backward pass.
            if not logits.requires_grad:
                why = "it cuts them off (torch.no_grad, detach or numpy)"
            elif any(_has_gradient(logits, points, target) for target in targets):
                return
        except (RuntimeError, TypeError) as error:
            why = f"it cannot be differentiated: {_first_line(error)}"
    raise _no_gradients(why)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def check_finite(gradients: Iterable[torch.Tensor]) -> None:
    """Raises NoGradients where one of these gradients has NaN or infinite numbers.

    A step along it leads nowhere.
    """
    # The largest absolute value over all tensors; NaN and infinity survive the maximum.
    found = torch.nn.utils.get_total_norm(list(gradients), norm_type=torch.inf)
    if not found.isfinite():
        raise _no_gradients("some are not finite (NaN or infinite)")


def _no_gradients(why: str) -> NoGradients:
    return NoGradients(
        f"expected a network with gradients for its images, got one without: {why}; nothing can "
        "be crafted"
    )


def _has_gradient(logits: torch.Tensor, points: torch.Tensor, target: int) -> bool:
    labels = torch.full((len(logits),), target, device=logits.device)
    loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
    gradients: torch.Tensor | None
    # The graph is kept for the next class.
    (gradients,) = torch.autograd.grad(loss, points, retain_graph=True, allow_unused=True)
    if gradients is None:
        return False
    check_finite([gradients])
    return bool((gradients != 0).any())


def in_float32(network: nn.Module) -> nn.Module:
    """Returns the network, or a copy in float32 where it has numbers of another precision."""
    tensors = (*network.parameters(), *network.buffers())
    if all(tensor.dtype == torch.float32 for tensor in tensors if tensor.is_floating_point()):
        return network
    # A copy: the caller's network keeps its precision.
    return copy.deepcopy(network).float()


def check_images(images: np.ndarray) -> None:
    """Checks that images to craft on are float32 `(N, C, H, W)` in [0, 1], at least one."""
    if images.ndim != 4 or len(images) == 0 or images.dtype != np.float32:
        raise ValueError(
            f"expected float32 images (N, C, H, W), at least one, got {images.dtype} of shape "
            f"{images.shape}"
        )
    if not (images.min() >= 0 and images.max() <= 1):
        raise ValueError(f"expected images in [0, 1], got [{images.min()}, {images.max()}]")


def _raise_mmap_threshold() -> None:
    """Has glibc's allocator reuse blocks of up to 32 MB.

    Given back after each layer, their page faults can double the time. Freeing one block of this
    size raises the threshold above which malloc maps blocks one by one.
    """
    # Just below 32 MiB, glibc's upper limit for the threshold, with room for the block's header.
    torch.empty(2**25 - 2**16, dtype=torch.uint8)
