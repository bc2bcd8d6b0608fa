"""Universal adversarial perturbations (Moosavi-Dezfooli et al. 2017).

One small pattern that changes the label of most images.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64

from wobbliness.attacks.gradients.frozen_network import (
    check_finite,
    check_gradients,
    check_images,
    frozen,
    in_float32,
)
from wobbliness.classifiers.torch_module import device_of
from wobbliness.runtime.progress import Advance, Progress, progress_bar

OVERSHOOT = 0.02  # of the DeepFool paper: a step ends behind the boundary, not on it
MAX_DEEPFOOL_STEPS = 20
STEP_SHARE = 0.05  # of the bound: how far one image moves the perturbation
SMALLEST_NORM = 1e-12  # divisor: a class may have no gradient


@dataclass(frozen=True, kw_only=True, eq=False)
class UniversalPerturbation:
    """Perturbation for all images, with the number of crafting images it fools.

    Attributes:
        values: `(C, H, W)` to be added to an image, pixel units of [0, 1].
        norm: 2.0 or inf: the norm that is bounded.
        bound: of that norm, pixel units of [0, 1].
        num_fooled: images whose label the perturbation changes; for a targeted one, those that get
            the target class.
        num_images: images crafted on; for a targeted one, those whose clean prediction is not the
            target class.
        target_class: the class wanted; None for any other than the clean prediction.
        num_passes: passes over the images that were made.
        reached: whether the fooling rate asked for was reached.
    """

    values: Float32[np.ndarray, "C H W"]
    norm: float
    bound: float
    num_fooled: int
    num_images: int
    target_class: int | None
    num_passes: int
    reached: bool

    def __post_init__(self) -> None:
        self.values.setflags(write=False)

    @property
    def name(self) -> str:
        """The name in records and tables, such as `universal-l2-1.5-to-5`."""
        norm = "linf" if math.isinf(self.norm) else f"l{self.norm:g}"
        target = "" if self.target_class is None else f"-to-{self.target_class}"
        return f"universal-{norm}-{self.bound:g}{target}"

    @property
    def fooling_rate(self) -> float:
        """Computes the share of the images crafted on that it fools."""
        return self.num_fooled / self.num_images

    def apply(self, images: Any) -> Any:
        """Returns a copy of the images with the perturbation added to each, clipped to [0, 1].

        Args:
            images: `(N, C, H, W)` float array or tensor in [0, 1].

        Returns:
            An array or tensor of the same kind, shape and type.

        Raises:
            ValueError: the images are no floats or have another shape than the perturbation.
        """
        if "float" not in str(images.dtype):
            raise ValueError(
                f"expected images as floats in [0, 1], got {images.dtype}; divide 8-bit pixels by "
                "255"
            )
        if images.ndim != 4 or tuple(images.shape[1:]) != self.values.shape:
            raise ValueError(
                f"expected images (N, *{self.values.shape}), got shape {tuple(images.shape)}"
            )
        # Copied: the values are read-only, which a tensor cannot be.
        if hasattr(images, "new_tensor"):
            return (images + images.new_tensor(self.values.copy())).clamp(0, 1)
        return (images + self.values.astype(images.dtype)).clip(0, 1)


def craft_universal_perturbation(
    network: torch.nn.Module,
    images: np.ndarray,
    *,
    norm: float,
    bound: float,
    fooling_rate: float = 0.8,
    target_class: int | None = None,
    max_passes: int = 10,
    batch_size: int = 100,
    seed: int = 0,
    progress: Progress | None = None,
) -> UniversalPerturbation:
    r"""Crafts one perturbation v, $\|v\|_p \le$ bound, that changes most of the labels.

    The labels are the network's own.

    As in the paper's algorithm 1, passes go over the images in random order, and the images that v
    does not fool yet push it over their nearest decision boundary, by DeepFool. It deviates in two
    ways:

    - The images of a batch push at a time, each from the same v, and the sum of their steps is
      projected. One by one costs a network call per image.
    - Every image's step is scaled to `STEP_SHARE` of the bound. With whole steps the images far
      from their boundary, which no v of that norm fools, undo what the others gained: on
      Fashion-MNIST, at the same bounds, their sum fooled about two thirds as many images, their
      mean fewer still.

    It is a heuristic: which labels the images flee to depends on their order, and another order or
    a target class may fool more. The perturbation of the pass that fooled most images is kept. The
    rate is counted after each pass.

    Args:
        network: gives logits `(N, K)`. It is run in evaluation mode, on the device of its
            parameters, and left as it was; one of another precision than float32 as a copy in
            float32.
        images: `(N, C, H, W)` float32 in [0, 1], to craft on; their labels are the network's own.
        norm: 2 or inf.
        bound: the largest norm of v, pixel units of [0, 1].
        fooling_rate: share of the images at which to stop, in (0, 1].
        target_class: the class that images of all others are to be predicted as; None where any
            change of label will do.
        max_passes: the most passes over the images.
        batch_size: images that push at a time.
        seed: of the order of the images.
        progress: called with (images done, images in all passes), in place of a bar on the
            terminal.

    Raises:
        NoGradients: no image changes the loss of any class, or gradients are NaN or infinite:
            nothing could move. A ValueError, too.
        ValueError: an argument is out of its range, the network gives no logits or NaN, or all
            images are of the target class already.
    """
    check_images(images)
    _check_quantities(norm, bound, fooling_rate)
    _check_counts(max_passes, batch_size, seed)
    network = in_float32(network)
    with frozen(network):
        # Images, and the network's own labels of them without a perturbation.
        crafting = _crafting(
            network,
            images,
            norm=norm,
            bound=bound,
            target_class=target_class,
            batch_size=batch_size,
        )
        best = crafting.best_pass(fooling_rate, max_passes, seed, progress)
    return crafting.result(best, fooling_rate)


def deepfool_steps(
    network: torch.nn.Module,
    points: Float32[torch.Tensor, "N C H W"],
    labels: Int64[torch.Tensor, " N"],
    *,
    norm: float,
    target_class: int | None = None,
) -> Float32[torch.Tensor, "N C H W"]:
    r"""Computes the smallest steps over a decision boundary, to first order.

    DeepFool, Moosavi-Dezfooli et al. 2016.

    With f the difference of two logits, w its gradient and 1/p + 1/q = 1, the step is $|f| /
    \|w\|_q$ along the direction of steepest ascent: $w / \|w\|_2$ for p = 2, sign(w) for p = inf;
    the class with the smallest such step is taken. That is repeated until the label changes, at
    most `MAX_DEEPFOOL_STEPS` times, and the sum is stretched by `OVERSHOOT`. Unlike in the paper
    the network sees the points clipped to [0, 1], so that no step is spent on pixels that cannot
    move.

    Args:
        network: gives logits `(N, K)`.
        points: where to start from; may lie outside [0, 1].
        labels: the classes to leave.
        norm: p, 2 or inf.
        target_class: the only class to step to, if given.
    """
    steps = torch.zeros_like(points)
    # Indices of the points that have not left their label yet.
    rest = torch.arange(len(points), device=points.device)
    for _ in range(MAX_DEEPFOOL_STEPS):
        # DeepFool's step from where the stretched sum leads, for the points whose label has not
        # changed.
        steps[rest] += _linear_steps(
            network, (points + (1 + OVERSHOOT) * steps)[rest], labels[rest], norm, target_class
        )
        answers = _labels(network, (points + (1 + OVERSHOOT) * steps)[rest], len(points))
        rest = rest[~_is_fooled(answers, labels[rest], target_class)]
        if not len(rest):
            break
    return (1 + OVERSHOOT) * steps


@dataclass(frozen=True, kw_only=True, eq=False)
class _Crafting:
    """Inputs that stay the same from pass to pass."""

    network: torch.nn.Module
    images: Float32[torch.Tensor, "N C H W"]
    labels: Int64[torch.Tensor, " N"]
    norm: float
    bound: float
    target_class: int | None
    batch_size: int

    def best_pass(
        self, fooling_rate: float, max_passes: int, seed: int, progress: Progress | None
    ) -> "_Best":
        """Makes passes until enough images are fooled; returns the one that fooled most."""
        num_images = len(self.images)
        values = torch.zeros_like(self.images[0])
        best = _Best(values=values, num_fooled=-1, num_passes=0)
        with progress_bar(
            "universal perturbation", max_passes * num_images, report=progress
        ) as advance:
            for number, order in enumerate(_orders(num_images, max_passes, seed), start=1):
                batches = torch.split(order.to(values.device), self.batch_size)
                values = self.one_pass(values, batches, advance)
                # The best pass is kept: a later one may fool fewer images.
                best = best.or_better(values, self.num_fooled(values), number)
                if best.num_fooled >= fooling_rate * num_images:
                    break
        return best

    def one_pass(
        self, values: torch.Tensor, batches: tuple[torch.Tensor, ...], advance: Advance
    ) -> torch.Tensor:
        """Lets each batch push the perturbation in turn; returns where it ends."""
        for batch in batches:
            points, labels = self.images[batch] + values, self.labels[batch]
            answers = _labels(self.network, points, len(points))
            rest = ~_is_fooled(answers, labels, self.target_class)
            if rest.any():
                # Back to the ball of the norm around 0.
                push = self._push(points[rest], labels[rest])
                values = _projected(values + push, self.norm, self.bound)
            advance(len(batch))
        return values

    def _push(self, points: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Returns the sum of the images' steps over their nearest boundary."""
        steps = deepfool_steps(
            self.network, points, labels, norm=self.norm, target_class=self.target_class
        )
        # Every step at a share of the bound, so that far images do not undo the others.
        return _scaled(steps, self.norm, STEP_SHARE * self.bound).sum(dim=0)

    def num_fooled(self, values: torch.Tensor) -> int:
        answers = _labels(self.network, self.images + values, self.batch_size)
        return int(_is_fooled(answers, self.labels, self.target_class).sum())

    def result(self, best: "_Best", fooling_rate: float) -> UniversalPerturbation:
        return UniversalPerturbation(
            values=best.values.cpu().numpy(),
            norm=float(self.norm),
            bound=self.bound,
            num_fooled=best.num_fooled,
            num_images=len(self.images),
            target_class=self.target_class,
            num_passes=best.num_passes,
            reached=best.num_fooled >= fooling_rate * len(self.images),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Best:
    """The perturbation that fooled most images, and the passes made so far."""

    values: Float32[torch.Tensor, "C H W"]
    num_fooled: int
    num_passes: int

    def or_better(self, values: torch.Tensor, num_fooled: int, num_passes: int) -> "_Best":
        """Returns the better of the two after one pass more; the earlier one of equals."""
        if num_fooled > self.num_fooled:
            return _Best(values=values, num_fooled=num_fooled, num_passes=num_passes)
        return replace(self, num_passes=num_passes)


def _crafting(
    network: torch.nn.Module,
    images: np.ndarray,
    *,
    norm: float,
    bound: float,
    target_class: int | None,
    batch_size: int,
) -> _Crafting:
    points = torch.from_numpy(images).to(device_of(network))
    _check_target(network, points, target_class)
    labels = _labels(network, points, batch_size)
    others = labels != -1 if target_class is None else labels != target_class
    _check_others(others, target_class)
    return _Crafting(
        network=network,
        images=points[others],
        labels=labels[others],
        norm=norm,
        bound=bound,
        target_class=target_class,
        batch_size=batch_size,
    )


def _check_target(network: torch.nn.Module, points: torch.Tensor, target_class: int | None) -> None:
    """Checks that there is such a class, and gradients towards it or any."""
    num_classes = _logits(network, points[:1]).shape[1]
    if target_class is not None and not 0 <= target_class < num_classes:
        raise ValueError(f"expected a target class from 0 to {num_classes - 1}, got {target_class}")
    classes = range(num_classes) if target_class is None else [target_class]
    with torch.enable_grad():
        check_gradients(partial(_logits, network), points, classes)


def _check_others(others: Bool[torch.Tensor, " N"], target_class: int | None) -> None:
    # Images of the target class already are neither pushed nor counted.
    if not others.any():
        raise ValueError(
            f"expected images of other classes than the target, got {len(others)} of class "
            f"{target_class}"
        )


def _orders(num_images: int, num_passes: int, seed: int) -> Iterator[Int64[torch.Tensor, " N"]]:
    # Each pass has its own stream, whatever the number of passes.
    for child in np.random.SeedSequence(seed).spawn(num_passes):
        yield torch.from_numpy(np.random.default_rng(child).permutation(num_images))


def _linear_steps(
    network: torch.nn.Module,
    points: torch.Tensor,
    labels: torch.Tensor,
    norm: float,
    target_class: int | None,
) -> Float32[torch.Tensor, "N C H W"]:
    """Computes the smallest steps over the boundaries of the linearised network."""
    with torch.enable_grad():
        points = points.detach().requires_grad_()
        logits = _logits(network, points)
        # Untargeted steps leave the label; a targeted one leaves whatever class is predicted there.
        origins = labels if target_class is None else logits.argmax(dim=1)
        # f_k - f_label for every class: the gaps to all boundaries.
        gaps = logits - logits.gather(1, origins[:, None])
        shortest, steps = torch.full_like(logits[:, 0], torch.inf), torch.zeros_like(points)
        for k in range(logits.shape[1]) if target_class is None else [target_class]:
            distances, directions = _to_boundary(gaps[:, k], points, norm)
            # The nearest boundary over all classes so far.
            is_nearer = (origins != k) & (distances < shortest)
            shortest = torch.where(is_nearer, distances, shortest)
            candidates = distances[:, None, None, None] * directions
            steps = torch.where(is_nearer[:, None, None, None], candidates, steps)
    return steps.detach()


def _to_boundary(
    gaps: Float32[torch.Tensor, " N"], points: Float32[torch.Tensor, "N C H W"], norm: float
) -> tuple[Float32[torch.Tensor, " N"], Float32[torch.Tensor, "N C H W"]]:
    """Computes distances to a linear boundary, and the directions of norm 1 to it."""
    # The sum's gradient is each image's own, since images do not depend on each other.
    (gradients,) = torch.autograd.grad(gaps.sum(), points, retain_graph=True)
    check_finite([gradients])
    # The distance in the p-norm is the gap over the gradient's dual norm, 1/p + 1/q = 1.
    dual_norm = 1.0 if norm == math.inf else 2.0
    slopes = torch.linalg.vector_norm(gradients.flatten(1), dual_norm, dim=1).clamp_min(
        SMALLEST_NORM
    )
    directions = gradients.sign() if norm == math.inf else gradients / slopes[:, None, None, None]
    return gaps.detach().abs() / slopes, directions


def _scaled(
    steps: Float32[torch.Tensor, "N C H W"], norm: float, length: float
) -> Float32[torch.Tensor, "N C H W"]:
    """Sets the norm of each step and keeps its direction; a step of 0 stays."""
    lengths = torch.linalg.vector_norm(steps.flatten(1), norm, dim=1).clamp_min(SMALLEST_NORM)
    factors: torch.Tensor = length / lengths
    return steps * factors[:, None, None, None]


def _projected(
    values: Float32[torch.Tensor, "C H W"], norm: float, bound: float
) -> Float32[torch.Tensor, "C H W"]:
    """Returns the nearest point of the ball."""
    if norm == math.inf:
        return torch.clamp(values, -bound, bound)
    length = float(torch.linalg.vector_norm(values))
    return torch.mul(values, min(1.0, bound / max(length, SMALLEST_NORM)))


def _is_fooled(
    answers: Int64[torch.Tensor, " N"], labels: Int64[torch.Tensor, " N"], target_class: int | None
) -> Bool[torch.Tensor, " N"]:
    return answers != labels if target_class is None else answers == target_class


def _labels(
    network: torch.nn.Module, points: torch.Tensor, batch_size: int
) -> Int64[torch.Tensor, " N"]:
    with torch.no_grad():
        answers = [_logits(network, batch) for batch in torch.split(points, batch_size)]
    if any(bool(logits.isnan().any()) for logits in answers):  # argmax would pick a NaN
        raise ValueError("expected scores that are numbers, got NaN")
    return torch.cat([logits.argmax(dim=1) for logits in answers])


def _logits(network: torch.nn.Module, points: torch.Tensor) -> Float32[torch.Tensor, "N K"]:
    # Images with the perturbation are clipped, as `apply` clips them.
    logits: object = network(points.clamp(0, 1))
    if isinstance(logits, torch.Tensor) and logits.ndim == 2 and logits.shape[1] >= 2:
        return logits
    got = (
        f"shape {tuple(logits.shape)}"
        if isinstance(logits, torch.Tensor)
        else type(logits).__name__
    )
    raise ValueError(
        f"expected the network to give logits ({len(points)}, K) of at least 2 classes, got {got}"
    )


def _check_quantities(norm: float, bound: float, fooling_rate: float) -> None:
    if norm not in (2, math.inf):
        raise ValueError(f"expected a norm of 2 or inf, got {norm}")
    if not 0 < bound < math.inf:
        raise ValueError(f"expected a bound above 0, got {bound}")
    if not 0 < fooling_rate <= 1:
        raise ValueError(f"expected a fooling rate in (0, 1], got {fooling_rate}")


def _check_counts(max_passes: int, batch_size: int, seed: int) -> None:
    if max_passes < 1 or batch_size < 1:
        raise ValueError(
            f"expected at least 1 pass and 1 image a batch, got {max_passes} and {batch_size}"
        )
    if seed < 0:
        raise ValueError(f"expected a seed of at least 0, got {seed}")
