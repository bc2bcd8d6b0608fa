"""The search of Neural Cleanse: reverse-engineers a minimum-norm trigger of each class.

Wang et al., IEEE S&P 2019.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from operator import attrgetter

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import nn

from wobbliness.attacks.gradients.adam import Adam
from wobbliness.attacks.gradients.frozen_network import (
    DifferentiableNetwork,
    check_finite,
    check_gradients,
    check_images,
    differentiable,
    in_float32,
)
from wobbliness.classifiers.torch_module import CPU, device_of
from wobbliness.detectors.reverse_engineering.candidates import Candidate, Candidates, anomaly_index
from wobbliness.detectors.reverse_engineering.cost_schedule import CostSchedule
from wobbliness.runtime.progress import Progress, progress_bar

__all__ = ["Candidate", "Candidates", "anomaly_index", "craft_candidates"]

BLOCK_IMAGES = 160
"""Images of one forward pass, of several candidates: fewer cost overheads, more leave the cache."""

ACCELERATOR_BLOCK_IMAGES = 2048
"""The same on an accelerator, which has no use for few."""

ADAM_BETAS = (0.5, 0.9)
SMALLEST_SHARE = 1e-7  # keeps the inverse of the tanh finite

_Start = tuple[int, int]  # class, restart


def craft_candidates(
    network: nn.Module,
    images: Float32[np.ndarray, "N C H W"],
    *,
    num_classes: int,
    restarts: int = 2,
    max_steps: int = 120,
    batch_size: int = 32,
    batches_per_step: int = 2,
    learning_rate: float = 0.1,
    initial_cost: float = 1e-3,
    success_threshold: float = 0.99,
    patience: int = 5,
    seed: int = 0,
    classes: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> Candidates:
    """Reverse-engineers a trigger for each class by gradient descent, all of them together.

    Adam minimises cross entropy + cost * |mask|_1, and `CostSchedule` moves the cost. As published,
    but: a step passes over a sample of the images rather than all; the masks of all steps at the
    threshold are candidates, and one is returned once it reached the threshold on all images in
    float32; a class that is not reached is a failure rather than the last step's mask. Gradients
    are in bfloat16 where the device has it. A network of another precision than float32 is crafted
    on as a copy in float32.

    Args:
        network: gives logits `(B, K)`. It is run on the device of its parameters, and left as it
            was.
        images: `(N, C, H, W)` clean images in [0, 1], of any class.
        num_classes: K.
        restarts: random starts of each class; a start depends on (seed, class, restart) alone.
        max_steps: most steps of each restart.
        batch_size: images of a mini-batch.
        batches_per_step: mini-batches, and so updates, of a step.
        learning_rate: of Adam, on the inverse hyperbolic tangent of mask and pattern.
        initial_cost: nats for each pixel of mask.
        success_threshold: share of images, in (0, 1].
        patience: steps before the cost moves.
        seed: of starts and mini-batches.
        classes: the target classes; None for all.
        progress: called with (steps done, steps in all), in place of a bar on the terminal.

    Raises:
        NoGradients: no image changes the loss of any of the classes, or gradients are NaN or
            infinite: a search could not move. A ValueError, too.
        ValueError: an argument is out of its range, or the network gives no logits `(B, K)` for the
            images.
    """
    targets = range(num_classes) if classes is None else classes
    _check_counts(
        num_classes=num_classes,
        restarts=restarts,
        max_steps=max_steps,
        batch_size=batch_size,
        patience=patience,
    )
    _check_counts(batches_per_step=batches_per_step, targets=len(targets))
    _check_rates(learning_rate, initial_cost, success_threshold)
    if seed < 0:
        raise ValueError(f"expected a seed of at least 0, got {seed}")
    check_images(images)
    if any(not 0 <= target < num_classes for target in targets) or len(set(targets)) < len(targets):
        raise ValueError(
            f"expected different classes in 0 to {num_classes - 1}, got {tuple(targets)}"
        )
    # All restarts of all classes are one batch of optimisations.
    starts = [(target, restart) for target in targets for restart in range(restarts)]
    schedule = CostSchedule(
        len(starts),
        initial_cost=initial_cost,
        success_threshold=success_threshold,
        patience=patience,
    )
    network = in_float32(network)
    pixels = torch.tensor(images, device=device_of(network))
    with differentiable(network, pixels[:2], num_classes) as forward:
        # Fails early where the network has no gradients to follow.
        check_gradients(partial(forward, fast=True), pixels, targets)
        attempts = _Attempts(
            forward, starts, images.shape[1:], seed=seed, learning_rate=learning_rate
        )
        batches = _mini_batches(pixels, batch_size, seed)
        hits = _search(attempts, schedule, batches, max_steps, batches_per_step, progress)
        measure = partial(_measured, forward, pixels, success_threshold)
        return Candidates(
            first=tuple(
                _first_measured(hits[k], measure, "num_steps", "restart")
                for k in range(num_classes)
            ),
            smallest=tuple(
                _first_measured(hits[k], measure, "mask_l1") for k in range(num_classes)
            ),
            classes=tuple(targets),
        )


def _search(
    attempts: "_Attempts",
    schedule: CostSchedule,
    batches: Iterator[torch.Tensor],
    max_steps: int,
    batches_per_step: int,
    progress: Progress | None,
) -> dict[int, list[Candidate]]:
    """Returns for each class the masks of all steps at the threshold.

    Each has the step's own success rate.
    """
    hits: dict[int, list[Candidate]] = defaultdict(list)
    with progress_bar("crafting candidates", max_steps, report=progress) as advance:
        for step in range(1, max_steps + 1):
            rates, norms = attempts.step(
                ~schedule.stopped, schedule.costs, list(islice(batches, batches_per_step))
            )
            for index in np.flatnonzero(schedule.update(rates, norms)).tolist():
                # Masks change with the next step: a hit is copied now.
                hit = attempts.candidate(index, rates[index], step)
                hits[hit.target_class].append(hit)
            # All have converged: the bar jumps to its end.
            if schedule.stopped.all():
                advance(max_steps - step + 1)
                break
            advance(1)
    return hits


class _Attempts:
    """Masks and patterns of all starts, and their optimiser.

    Each start's are one tensor `(1 + C, H, W)`, mask first, as the inverse tanh. Adam leaves alone
    what has no gradient, so that a start that is closed costs nothing.
    """

    def __init__(
        self,
        forward: DifferentiableNetwork,
        starts: list[_Start],
        image_shape: tuple[int, ...],
        *,
        seed: int,
        learning_rate: float,
    ) -> None:
        channels, height, width = image_shape
        self._forward, self._starts = forward, starts
        device = forward.device
        self._targets = torch.tensor([target for target, _ in starts], device=device)
        self._parameters = [
            _random_start(seed, start, (1 + channels, height, width), device) for start in starts
        ]
        self._optimiser = Adam(self._parameters, learning_rate=learning_rate, betas=ADAM_BETAS)

    def step(
        self,
        is_open: Bool[np.ndarray, " n"],
        costs: Float[np.ndarray, " n"],
        batches: list[torch.Tensor],
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Updates once for each mini-batch; returns mean success rates and norms.

        Both `(n,)`, 0 where closed.
        """
        device = self._forward.device
        rates, norms = torch.zeros((2, len(is_open)), dtype=torch.float64, device=device)
        weights = torch.from_numpy(costs).float().to(device)
        # So many starts share one forward pass: starts times the mini-batch fill a block.
        num_together = max(1, _block_images(device) // len(batches[0]))
        blocks = torch.split(torch.from_numpy(np.flatnonzero(is_open)), num_together)
        for batch in batches:
            self._optimiser.zero_grad()
            for block in blocks:
                successes, sizes = self._backward(batch, block, weights[block])
                # Summed on the device; read once a step, since each read waits for it.
                rates[block] += successes
                norms[block] += sizes
            check_finite(
                parameter.grad for parameter in self._parameters if parameter.grad is not None
            )
            self._optimiser.step()
        return rates.cpu().numpy() / len(batches), norms.cpu().numpy() / len(batches)

    def candidate(self, index: int, success_rate: float, step: int) -> Candidate:
        """Returns a start's mask and pattern as they are now."""
        target, restart = self._starts[index]
        mask, pattern = _unit_interval(self._parameters[index].detach()).cpu().tensor_split([1])
        return Candidate(
            target_class=target,
            mask=mask[0].numpy(),
            pattern=pattern.numpy(),
            success_rate=float(success_rate),
            mask_l1=mask.double().sum().item(),
            restart=restart,
            num_steps=step,
        )

    def _backward(
        self, batch: torch.Tensor, block: torch.Tensor, costs: torch.Tensor
    ) -> tuple[Float[torch.Tensor, " b"], Float[torch.Tensor, " b"]]:
        """Adds the gradients of one block of starts on one mini-batch.

        Returns their success rates and norms before the update.
        """
        values = _unit_interval(torch.stack([self._parameters[index] for index in block.tolist()]))
        masks, patterns = values[:, None, :1], values[:, None, 1:]
        # Every start's trigger on every image: one batch of starts times images.
        logits = self._forward(torch.lerp(batch, patterns, masks).flatten(0, 1), fast=True)
        labels = self._targets[block].repeat_interleave(len(batch))
        # Mean cross entropy of each start over the mini-batch.
        entropies = (
            nn.functional.cross_entropy(logits, labels, reduction="none")
            .view(len(block), -1)
            .mean(dim=1)
        )
        norms = masks.flatten(1).sum(dim=1)
        # Starts share no parameter: the gradient of the sum is each start's own.
        (entropies + costs * norms).sum().backward()  # type: ignore[no-untyped-call]
        return (logits.argmax(dim=1) == labels).double().view(len(block), -1).mean(
            dim=1
        ), norms.detach().double()


def _measured(
    forward: DifferentiableNetwork, pixels: torch.Tensor, threshold: float, candidate: Candidate
) -> Candidate | None:
    """Returns the candidate with its success rate on all images in float32.

    None as soon as it can no longer reach the threshold.
    """
    stamp, misses = candidate.trigger(), 0
    with torch.no_grad():
        for block in torch.split(pixels, _block_images(forward.device)):
            misses += int(
                (
                    forward(stamp.apply(block), fast=False).argmax(dim=1) != candidate.target_class
                ).sum()
            )
            # Even if all further images were hits.
            if (len(pixels) - misses) / len(pixels) < threshold:
                return None
    return replace(candidate, success_rate=(len(pixels) - misses) / len(pixels))


def _first_measured(
    hits: list[Candidate], measure: Callable[[Candidate], Candidate | None], *order: str
) -> Candidate | None:
    """Returns the first hit, in this order, that keeps its success on all images."""
    return next(filter(None, map(measure, sorted(hits, key=attrgetter(*order)))), None)


def _mini_batches(pixels: torch.Tensor, batch_size: int, seed: int) -> Iterator[torch.Tensor]:
    """Yields mini-batches of endless passes over the images in random order.

    The rest that fills no batch is left out of its pass.
    """
    rng = np.random.default_rng(seed)
    # Batches of one size; a small set of images is one batch.
    size = min(batch_size, len(pixels))
    while True:
        # A new order each pass, without replacement within it.
        order = torch.from_numpy(rng.permutation(len(pixels))).to(pixels.device)
        for first in range(0, len(pixels) - size + 1, size):
            yield pixels[order[first : first + size]]


def _random_start(
    seed: int, start: _Start, shape: tuple[int, ...], device: torch.device
) -> torch.Tensor:
    """Draws uniform values in the unit interval, as the inverse tanh."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=start))
    # 0 and 1 have no finite inverse tanh.
    shares = np.clip(rng.random(shape, dtype=np.float32), SMALLEST_SHARE, 1 - SMALLEST_SHARE)
    return torch.from_numpy(np.arctanh(2 * shares - 1)).to(device).requires_grad_()


def _block_images(device: torch.device) -> int:
    return BLOCK_IMAGES if device == CPU else ACCELERATOR_BLOCK_IMAGES


def _unit_interval(values: torch.Tensor) -> torch.Tensor:
    # The whole line to (0, 1): Adam needs no bounds.
    return (values.tanh() + 1) / 2


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"expected {name} of at least 1, got {count}")


def _check_rates(learning_rate: float, initial_cost: float, success_threshold: float) -> None:
    if not (learning_rate > 0 and initial_cost > 0):
        raise ValueError(
            f"expected a learning rate and an initial cost above 0, got {learning_rate} and "
            f"{initial_cost}"
        )
    if not 0 < success_threshold <= 1:
        raise ValueError(f"expected a success threshold in (0, 1], got {success_threshold}")
