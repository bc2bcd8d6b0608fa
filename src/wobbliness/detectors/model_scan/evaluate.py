"""Effects of patterns on images: label flips, attack success, and W around them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int

from wobbliness.attacks.patch import Trigger
from wobbliness.classifiers import Classifier
from wobbliness.detectors.batches.batch_test import compare_w
from wobbliness.detectors.model_scan.results import PatternEffect
from wobbliness.perturbations.base import image_keys
from wobbliness.runtime.progress import Progress
from wobbliness.sampling.measure import measure, sweep

# of images with patterns measured at a time: each measurement prepares the model again
STAMPED_BYTES = 2**28

Pattern = tuple[Trigger, int | None]
"""A pattern and the class that images with it are meant to be predicted as, where that is known."""

_Answers = tuple[Int[np.ndarray, " N"], Mapping[float, Float[np.ndarray, " N"]]]
"""Labels of the images with a pattern, and their W at each sigma."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SuspectPoints:
    """Images that every pattern is put on, and how they are measured.

    An image has the same noise with every pattern.

    Attributes:
        classifier: opened.
        images: `(N, C, H, W)` in [0, 1].
        sigmas: standard deviations of the noise, pixel units of [0, 1].
        draws: noisy copies of each image.
        seed: of the noise, and of the choice of clean points in a comparison.
        progress: as for `measure`.
    """

    classifier: Classifier
    images: Float32[np.ndarray, "N C H W"]
    sigmas: tuple[float, ...]
    draws: int
    seed: int
    progress: Progress | None

    def effects(
        self,
        patterns: Sequence[Pattern],
        clean_w: Mapping[float, Float[np.ndarray, " M"]],
        *,
        level: float,
    ) -> tuple[PatternEffect, ...]:
        """Measures each pattern's effect and compares W around it with that of clean images.

        Each comparison is at the level.
        """
        before = (
            self._labels(self.images, image_keys(self.images))
            if patterns
            else np.empty(0, np.int64)
        )
        return tuple(
            self._effect(pattern, before, answers, clean_w, level)
            for pattern, answers in zip(patterns, self._answers(patterns), strict=True)
        )

    def _answers(self, patterns: Sequence[Pattern]) -> Iterator[_Answers]:
        """Yields labels and W of the images with each pattern, several patterns at a time.

        As many as fit the memory set aside for them.
        """
        num_together, num_images = max(1, STAMPED_BYTES // self.images.nbytes), len(self.images)
        for first in range(0, len(patterns), num_together):
            block = patterns[first : first + num_together]
            stamped = np.concatenate([stamp.apply(self.images) for stamp, _ in block])
            # The clean image's keys: an image has the same noise with every pattern.
            keys = np.tile(image_keys(self.images), len(block))
            labels, w = self._labels(stamped, keys), self._sweep(stamped, keys)
            for start in range(0, len(stamped), num_images):
                own = slice(start, start + num_images)
                yield labels[own], {sigma: values[own] for sigma, values in w.items()}

    def _effect(
        self,
        pattern: Pattern,
        before: Int[np.ndarray, " N"],
        answers: _Answers,
        clean_w: Mapping[float, Float[np.ndarray, " M"]],
        level: float,
    ) -> PatternEffect:
        (stamp, target), (after, w) = pattern, answers
        # A suspected trigger's target is not known: the class that most labels change to.
        target = _moved_to(before, after) if target is None else target
        # Images of the target class itself cannot be attacked.
        is_other = before != (-1 if target is None else target)
        is_success = is_other & (after == target)
        # the first one on which the attack succeeds, else the first
        example = self.images[int(is_success.argmax()) :][:1]
        return PatternEffect(
            trigger=stamp,
            target_class=target,
            num_points=len(before),
            num_others=int(is_other.sum()),
            num_sent=int(is_success.sum()),
            num_changed=int((before != after).sum()),
            clean=example[0],
            stamped=stamp.apply(example)[0],
            w=w,
            comparison=compare_w(clean_w, w, level=level, seed=self.seed),
        )

    def _labels(self, images: Float32[np.ndarray, "M C H W"], keys: Any) -> Int[np.ndarray, " M"]:
        """Predicts classes without noise."""
        return measure(
            self.classifier, images, 0.0, draws=1, keys=keys, progress=self.progress
        ).label

    def _sweep(
        self, images: Float32[np.ndarray, "M C H W"], keys: Any
    ) -> Mapping[float, Float[np.ndarray, " M"]]:
        found = sweep(
            self.classifier,
            images,
            self.sigmas,
            draws=self.draws,
            seed=self.seed,
            keys=keys,
            progress=self.progress,
        )
        return found.wobbliness


def _moved_to(before: Int[np.ndarray, " N"], after: Int[np.ndarray, " N"]) -> int | None:
    """Returns the class that most labels change to; None where none changes."""
    moved = after[after != before]
    return int(np.bincount(moved).argmax()) if len(moved) else None
