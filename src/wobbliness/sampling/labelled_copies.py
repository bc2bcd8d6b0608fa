"""The perturbed copies that votes are counted of, each with its predicted class."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Int

from wobbliness.perturbations.base import Perturbation, Scratch, Stream
from wobbliness.sampling.plan import Plan, Prepared, make_plan


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledCopies:
    """Perturbed copies of images.

    Attributes:
        copies: `(N, D, ...)` in the order of their draws; noise may leave [0, 1].
        label: `(N, D)` the predicted class of each.
    """

    copies: Float32[np.ndarray, "N D ..."]
    label: Int[np.ndarray, "N D"]


def labelled_copies(
    classifier: Any,
    images: Any,
    perturbation: float | Perturbation,
    draws: int,
    seed: int = 0,
    *,
    num_classes: int | None = None,
    device: str | None = None,
) -> LabelledCopies:
    """Makes the copies that `measure` counts votes of, and predicts each.

    The draws are those of `measure` on the host: `np.bincount` of the labels of an image are its
    votes. On a device the device draws noise of its own, and the copies there are others of the
    same kind.

    Args:
        classifier: as for `measure`.
        images: `(N, ...)` in [0, 1], few: all of their copies are kept.
        perturbation: or sigma.
        draws: copies of each image, at most as many as the perturbation has.
        seed: of the draws.
        num_classes: as for `measure`.
        device: as for `measure`.

    Raises:
        ValueError: as for `measure`.
    """
    settings: dict[str, Any] = {"draws": draws, "seed": seed, "num_classes": num_classes}
    plan = make_plan(classifier, images, [perturbation], device=device, **settings)
    return plan.run(lambda prepared: _labelled(plan, prepared))


def _labelled(plan: Plan, prepared: Prepared) -> LabelledCopies:
    draws, shape = len(plan.span_of(0)), plan.images[0].shape
    copies = np.empty((len(plan.images), draws, *shape), np.float32)
    label = np.empty(copies.shape[:2], np.int64)
    for row, key in enumerate(plan.keys):
        image = np.asarray(plan.images[row], dtype=np.float32)
        stream = Stream(plan.seed, int(key), scratch=Scratch())
        plan.perturbations[0].copies(stream, image, draws, copies[row])
        # A copy, as a module may change its batch in place.
        block = copies[row].copy()
        label[row] = prepared.classify(block, prepared.execution.block_size or 1)
    return LabelledCopies(copies=copies, label=label)
