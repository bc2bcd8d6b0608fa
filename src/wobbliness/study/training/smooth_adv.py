"""Noisy and adversarial copies of training images (Salman et al. 2019)."""

import math
from collections.abc import Callable

import numpy as np
import torch

from wobbliness.study.specs.smooth_adv import SmoothAdv

STEP_LENGTH = 2.0  # of all steps together, as a share of epsilon: enough to reach it and turn
SMALLEST_NORM = 1e-12  # divisor: a gradient may be zero

Scores = Callable[[torch.Tensor], torch.Tensor]


def noise_of_step(
    settings: SmoothAdv, shape: tuple[int, ...], *, seed: int, step: int
) -> torch.Tensor:
    """Draws the noise of one step of training.

    It depends on seed and step alone: a training that is resumed has the same.

    Args:
        settings: sigma and number of copies.
        shape: `(B, C, H, W)` of the batch.
        seed: of the training.
        step: number of the step over all epochs.

    Returns:
        `(m, B, C, H, W)` float32 on the CPU, from N(0, sigma^2).
    """
    # Counter-based and on the CPU: every step and every device has the same noise.
    rng = np.random.Generator(np.random.Philox(key=[seed, step]))
    values = rng.standard_normal((settings.copies, *shape), dtype=np.float32)
    return torch.from_numpy(values * np.float32(settings.sigma))


def noisy_copies(images: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Returns `(m B, C, H, W)`, all images with the first noise, then all with the second."""
    # One batch of m B rows: one forward pass for all copies.
    return (images + noise).flatten(0, 1).contiguous(memory_format=torch.channels_last)


def smoothed_loss(
    scores: Scores, images: torch.Tensor, labels: torch.Tensor, noise: torch.Tensor
) -> torch.Tensor:
    """Computes -ln((1/m) sum_i F_y(x + eta_i)) for each image, F the softmax of the scores.

    Args:
        scores: logits `(B, K)` of a batch.
        images: `(B, C, H, W)`.
        labels: `(B,)`, y.
        noise: `(m, B, C, H, W)`, the eta_i.

    Returns:
        `(B,)` nats.
    """
    num_copies = len(noise)
    logs = torch.log_softmax(scores(noisy_copies(images, noise)), dim=1)
    # Rows go copy by copy, as `noisy_copies` stacks them.
    of_labels = logs.gather(1, labels.repeat(num_copies)[:, None]).view(num_copies, -1)
    # The logarithm of a mean of probabilities, which may underflow one by one.
    return math.log(num_copies) - of_labels.logsumexp(dim=0)


def adversarial_shift(
    scores: Scores,
    images: torch.Tensor,
    labels: torch.Tensor,
    noise: torch.Tensor,
    *,
    epsilon: float,
    steps: int,
) -> torch.Tensor:
    """Maximises `smoothed_loss` of x + d over |d|_2 <= epsilon, x + d in [0, 1], from d = 0.

    Args:
        scores: as for `smoothed_loss`, of a network that treats each image by itself.
        images: in [0, 1].
        labels: as for `smoothed_loss`.
        noise: as for `smoothed_loss`.
        epsilon: pixel units of [0, 1].
        steps: of projected gradient ascent.

    Returns:
        d `(B, C, H, W)`.
    """
    shift = torch.zeros_like(images)
    for _ in range(steps):
        shift.requires_grad_()
        # Summed, so that the gradient of an image does not depend on the size of the batch.
        loss = smoothed_loss(scores, images + shift, labels, noise).sum()
        # For the shift alone: the parameters' own gradients stay untouched.
        (gradient,) = torch.autograd.grad(loss, shift)
        length = STEP_LENGTH * epsilon / steps
        # Steps of one l2 length: loss gradients of well-classified images are tiny.
        moved = shift.detach() + length * gradient / _norms(gradient)
        shift = _within(moved, images, epsilon)
    return shift


def _within(shift: torch.Tensor, images: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Returns shifts that keep the images in [0, 1], no longer than epsilon."""
    # The box first: it is convex, so that a shift that is made shorter stays in it.
    inside = (images + shift).clamp(0, 1) - images
    # Never made longer: what lies within the ball stays where it is.
    return inside * (epsilon / _norms(inside)).clamp(max=1)


def _norms(values: torch.Tensor) -> torch.Tensor:
    """Returns the l2 norm of each image, `(B, 1, 1, 1)`, never 0."""
    norms: torch.Tensor = torch.linalg.vector_norm(values.flatten(1), dim=1)
    return norms.clamp(min=SMALLEST_NORM)[:, None, None, None]
