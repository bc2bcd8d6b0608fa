"""Votes under families of few draws: copies of several images share blocks.

A block of an image's own would be small, and each call of the classifier has its price. All blocks
have one size, the last one filled up with copies that are there already, so that an image's votes
do not depend on how many others there are.
"""

import numpy as np
from jaxtyping import Float32, Int

from wobbliness.perturbations.base import Scratch, Stream, ThreadScratch
from wobbliness.runtime.progress import Advance
from wobbliness.runtime.threads import check_stopped
from wobbliness.sampling.counting.tallies import ScoreTally, VoteTally
from wobbliness.sampling.plan import NOISE_VALUES, Plan, Prepared


class GroupCounter:
    """Counts the votes of a group of images at a time; each thread has memory of its own.

    Attributes:
        num_groups: of images, each counted by one call.
    """

    def __init__(
        self, plan: Plan, prepared: Prepared, tally: VoteTally, scores: ScoreTally | None
    ) -> None:
        """Starts to count.

        Args:
            plan: of perturbations with few draws each.
            prepared: the classifier, ready.
            tally: gets the votes.
            scores: gets the scores; None where they are not asked for.
        """
        self._plan, self._prepared, self._tally, self._scores = plan, prepared, tally, scores
        self._block_size = prepared.execution.block_size or 1
        # Copies of an image stand one perturbation after another.
        draws = [len(plan.span_of(row)) for row in range(len(plan.perturbations))]
        ends = np.cumsum(draws).tolist()
        self._spans = [slice(end - n, end) for n, end in zip(draws, ends, strict=True)]
        self._row_of_copy = np.repeat(np.arange(len(draws)), draws)
        self._size = self._images_of_a_group()
        self.num_groups = -(-len(plan.images) // self._size)
        self._own = ThreadScratch()

    def _images_of_a_group(self) -> int:
        """Returns as many as fit within the cache, but work for each thread."""
        plan, num_copies = self._plan, len(self._row_of_copy)
        num_values = int(plan.images[0].size)
        within_cache = max(self._block_size, NOISE_VALUES // num_values) // num_copies
        return max(1, min(within_cache, -(-len(plan.images) // plan.num_workers)))

    def reported(self, report: Advance) -> Advance:
        """Returns what reports groups as the images in them."""
        left = len(self._plan.images)

        def advance(num_groups: int) -> None:
            nonlocal left
            num_images = min(left, num_groups * self._size)
            left -= num_images
            report(num_images)

        return advance

    def __call__(self, group: int) -> None:
        """Counts the votes of the images of a group."""
        check_stopped()
        first = group * self._size
        images = range(first, min(first + self._size, len(self._plan.images)))
        copies = self._copies(images)
        labels = self._labels(images, copies)[: len(images) * len(self._row_of_copy)]
        self._tally.put(first, self._votes(labels.reshape(len(images), -1)))

    def _copies(self, images: range) -> Float32[np.ndarray, "B ..."]:
        """Returns the copies of all images, and some of them once more to fill the last block."""
        plan, scratch, num_copies = self._plan, self._own.scratch, len(self._row_of_copy)
        num_blocks = -(-len(images) * num_copies // self._block_size)
        copies = scratch.array(
            "copies", (num_blocks * self._block_size, *plan.images[images.start].shape)
        )
        used = len(images) * num_copies
        by_image = copies[:used].reshape(len(images), num_copies, *copies.shape[1:])
        for index, own in zip(images, by_image, strict=True):
            self._write(index, own, scratch)
        copies[used:] = copies[0]
        return copies

    def _write(self, index: int, copies: Float32[np.ndarray, "B ..."], scratch: Scratch) -> None:
        plan = self._plan
        image = np.asarray(plan.images[index], dtype=np.float32)
        stream = Stream(
            plan.seed, int(plan.keys[index]), first_draw=plan.span.start, scratch=scratch
        )
        for perturbation, span in zip(plan.perturbations, self._spans, strict=True):
            if span.stop > span.start:
                perturbation.copies(stream, image, span.stop - span.start, copies[span])

    def _labels(self, images: range, copies: Float32[np.ndarray, "B ..."]) -> Int[np.ndarray, " B"]:
        if self._scores is None:
            return self._prepared.classify(copies, self._block_size)
        answers = self._prepared.answers(copies, self._block_size)
        by_image = np.split(answers[: len(images) * len(self._row_of_copy)], len(images))
        for index, own in zip(images, by_image, strict=True):
            for row, span in enumerate(self._spans):
                self._scores.add(index, row, own[span])
        labels: np.ndarray = self._plan.classifier.labels_of(answers, len(copies))  # type: ignore[attr-defined]
        return labels

    def _votes(self, labels: Int[np.ndarray, "M C"]) -> Int[np.ndarray, "M S K"]:
        """Returns counts of the labels of each image under each perturbation."""
        num_classes = self._plan.classifier.num_classes or 1 + int(labels.max())
        shape = (len(labels), len(self._spans), num_classes)
        # One count for all: a label's place in (image, perturbation, class).
        rows = np.arange(shape[0])[:, None] * shape[1] + self._row_of_copy
        counts = np.bincount((rows * num_classes + labels).ravel(), minlength=int(np.prod(shape)))
        return counts.reshape(shape)
