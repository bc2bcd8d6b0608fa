"""Votes counted image by image, in threads: perturb, classify, count."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Int

from wobbliness.classifiers.execution import Execution
from wobbliness.perturbations.base import Stream, ThreadScratch
from wobbliness.runtime.progress import Advance, ignore_progress
from wobbliness.runtime.threads import check_stopped, for_each
from wobbliness.sampling.counting.changed_votes import ChangedVotes
from wobbliness.sampling.counting.group_counting import GroupCounter
from wobbliness.sampling.counting.tallies import ScoreTally, VoteTally, widened
from wobbliness.sampling.plan import Plan, Prepared
from wobbliness.sampling.score_sums import ScoreSums


@dataclass(frozen=True, kw_only=True, eq=False)
class Counted:
    """What a measurement counted.

    Attributes:
        counts: `(N, S, K)` votes under each perturbation.
        execution: how the forward passes were run.
        clean_label: `(N,)` predictions of the images as they are; None where not asked for.
        scores: sums over the copies; None where they were not asked for.
        precisions: of an execution, under each perturbation; none where they are all that of
            `execution`.
        changed_votes: what the audit of checked low precision found under each perturbation; none,
            or None, where float32 has all votes.
    """

    counts: Int[np.ndarray, "N S K"]
    execution: Execution
    clean_label: Int[np.ndarray, " N"] | None
    scores: ScoreSums | None = None
    precisions: tuple[str | None, ...] = ()
    changed_votes: tuple[ChangedVotes | None, ...] = ()

    def execution_of(self, row: int) -> Execution:
        """Returns how the forward passes under one perturbation were run."""
        if not self.precisions:
            return self.execution
        return replace(self.execution, precision=self.precisions[row])


def count_in_threads(plan: Plan, prepared: Prepared, report: Advance) -> Counted:
    """Counts the votes of all images, each by one thread.

    Args:
        plan: what is measured.
        prepared: the classifier, ready.
        report: called with the number of images just done.
    """
    # First, while no memory is held for copies.
    clean_label = clean_labels(plan, prepared) if plan.keeps_clean else None
    tally = VoteTally(len(plan.images), len(plan.perturbations), plan.classifier.num_classes or 1)
    scores = ScoreTally(plan) if plan.scores else None
    if prepared.shares_blocks:
        groups = GroupCounter(plan, prepared, tally, scores)
        advance = groups.reported(report)
        for_each(groups, groups.num_groups, workers=plan.num_workers, advance=advance)
    else:
        counter = ImageCounter(plan, prepared, scores)
        for_each(
            lambda index: tally.put(index, counter(index)[None]),
            len(plan.images),
            workers=plan.num_workers,
            advance=report,
        )
    return Counted(
        counts=tally.counts,
        execution=prepared.execution,
        clean_label=clean_label,
        scores=None if scores is None else scores.sums(_clean_answers(plan, prepared)),
    )


def clean_labels(plan: Plan, prepared: Prepared) -> Int[np.ndarray, " N"]:
    """Returns the predictions of the images as they are."""
    return _of_clean(plan, prepared, plan.classifier.classify)


def _clean_answers(plan: Plan, prepared: Prepared) -> np.ndarray:
    return _of_clean(plan, prepared, plan.classifier.answers)  # type: ignore[attr-defined]


def _of_clean(
    plan: Plan, prepared: Prepared, function: Callable[[np.ndarray, int], np.ndarray]
) -> np.ndarray:
    """Applies a function to the images as they are, a block to each thread."""
    size = prepared.execution.block_size or 1
    num_blocks = -(-len(plan.images) // size)
    answers: dict[int, np.ndarray] = {}

    def answer(index: int) -> None:
        check_stopped()
        block = np.asarray(plan.images[index * size : (index + 1) * size], dtype=np.float32)
        # Padded with its own images where the classifier takes whole blocks alone; a copy in any
        # case, as a module may change its batch in place.
        shape = (size, *block.shape[1:]) if prepared.takes_whole_blocks else block.shape
        answers[index] = function(np.resize(block, shape), size)[: len(block)]

    # On a device one thread queues all work.
    workers = 1 if plan.is_on_device else plan.num_workers
    for_each(answer, num_blocks, workers=workers, advance=ignore_progress)
    return np.concatenate([answers[index] for index in range(num_blocks)])


class ImageCounter:
    """Counts the votes of one image at a time; each thread has memory of its own."""

    def __init__(self, plan: Plan, prepared: Prepared, scores: ScoreTally | None) -> None:
        self._plan, self._prepared, self._scores = plan, prepared, scores
        self._block_size = block_size = prepared.execution.block_size or 1
        self._chunk = plan.rows_within_cache(block_size)
        self._spans = [plan.span_of(row) for row in range(len(plan.perturbations))]
        self._own = ThreadScratch()

    def __call__(self, index: int) -> Int[np.ndarray, "S K"]:
        """Returns the votes of an image under each perturbation."""
        plan, scratch = self._plan, self._own.scratch
        image = np.asarray(plan.images[index], dtype=np.float32)
        # Of a classifier that gives labels alone K may be unknown: columns are added as they come.
        shape = (len(plan.perturbations), plan.classifier.num_classes or 1)
        counts = np.zeros(shape, dtype=np.int64)
        stream = Stream(
            plan.seed, int(plan.keys[index]), first_draw=plan.span.start, scratch=scratch
        )
        for first in plan.span[:: self._chunk]:
            draws = min(self._chunk, plan.span.stop - first)
            copies = scratch.array("copies", (draws, *image.shape))
            for row, perturbation in enumerate(plan.perturbations):
                # A family of a fixed number of draws may have fewer, or none, on this page.
                left = copies[: max(0, self._spans[row].stop - first)]
                if not len(left):
                    continue
                # Between two calls of the classifier: Ctrl-C need not wait for an image's end.
                check_stopped()
                # The same draws for each perturbation; `copies` is filled again and again.
                perturbation.copies(stream, image, len(left), left)
                labels = self._labels(index, row, left)
                counts = widened(counts, plan.classifier.num_classes or 1 + int(labels.max()))
                counts[row] += np.bincount(labels, minlength=counts.shape[1])
            # Only now: the next chunk's draws follow those that all perturbations had.
            stream.turn(draws)
        return counts

    def _labels(
        self, index: int, row: int, copies: Float32[np.ndarray, "B ..."]
    ) -> Int[np.ndarray, " B"]:
        if self._scores is None:
            return self._prepared.classify(copies, self._block_size)
        answers = self._prepared.answers(copies, self._block_size)
        labels: np.ndarray = self._plan.classifier.labels_of(answers, len(copies))  # type: ignore[attr-defined]
        self._scores.add(index, row, answers)
        return labels
