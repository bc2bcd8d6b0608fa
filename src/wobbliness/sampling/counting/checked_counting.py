"""Votes counted in checked low precision: perturb, classify in int8, cast doubtful votes again."""

import threading
from dataclasses import replace

import numpy as np
from jaxtyping import Float32, Int

from wobbliness.perturbations.base import Stream, ThreadScratch
from wobbliness.runtime.progress import Advance
from wobbliness.runtime.threads import check_stopped, for_each
from wobbliness.sampling.counting import low_precision
from wobbliness.sampling.counting.changed_votes import ChangedVotes
from wobbliness.sampling.counting.doubtful_copies import Pool, Recast, RecastTally
from wobbliness.sampling.counting.in_threads import Counted, clean_labels, count_in_threads
from wobbliness.sampling.counting.low_precision import (
    CHECKED,
    CONTRADICTED,
    FLOAT32,
    LowPrecision,
    audited,
    labels_and_margins,
    open_low_precision,
)
from wobbliness.sampling.counting.tallies import VoteTally, widened
from wobbliness.sampling.plan import Plan, Prepared

# Of the claim that the audit contradicts the calibration; it is wrong once in a thousand calls.
CONTRADICTION = 0.999


def count_checked(plan: Plan, prepared: Prepared, report: Advance) -> Counted:
    """Counts the votes of all images in low precision where it is allowed and pays.

    In float32 where not, and again in float32 where the audit contradicts the calibration; the
    executions say why.

    Args:
        plan: what is measured.
        prepared: the classifier in float32, ready.
        report: called with the number of images just done.
    """
    low = open_low_precision(plan, prepared)
    if isinstance(low, str):
        return _in_float32(plan, prepared, report, low)
    counter = CheckedCounter(plan, prepared, low)
    counted = counter.count(report)
    for found in counted.changed_votes:
        if found is not None and is_contradicted(found):
            report(-len(plan.images))
            return _in_float32(plan, prepared, report, contradiction(found))
    return counted


def is_contradicted(found: ChangedVotes) -> bool:
    """Checks whether an audit shows that more votes change than the calibration allows."""
    return found.lower_bound(CONTRADICTION) > low_precision.MAX_CHANGED


def contradiction(found: ChangedVotes) -> str:
    """Returns what is said of an audit that contradicts the calibration."""
    return CONTRADICTED.format(found.num_audited, found.num_changed)


def _in_float32(plan: Plan, prepared: Prepared, report: Advance, reason: str) -> Counted:
    counted = count_in_threads(plan, prepared, report)
    execution = replace(counted.execution, precision=FLOAT32.format(reason))
    return replace(counted, execution=execution)


class CheckedCounter:
    """Counts the votes of one image at a time; each thread has memory and a pool of its own."""

    def __init__(self, plan: Plan, prepared: Prepared, low: LowPrecision) -> None:
        """Starts to count.

        Args:
            plan: what is measured.
            prepared: the classifier in float32.
            low: the one in low precision.
        """
        self._plan, self._prepared, self._low = plan, prepared, low
        self._block_size = block_size = prepared.execution.block_size or 1
        self._chunk = plan.rows_within_cache(block_size)
        num_images, num_rows = len(plan.images), len(plan.perturbations)
        num_classes = plan.classifier.num_classes or 1
        self._tally = VoteTally(num_images, num_rows, num_classes)
        self._recast = RecastTally(prepared, num_images, num_rows, num_classes)
        self._num_low = np.zeros((num_images, num_rows), np.int64)
        self._own, self._pools = ThreadScratch(), threading.local()

    def count(self, report: Advance) -> Counted:
        """Counts the votes of all images."""
        plan, prepared = self._plan, self._prepared
        clean_label = clean_labels(plan, prepared) if plan.keeps_clean else None
        for_each(self, len(plan.images), workers=plan.num_workers, advance=report)
        self._recast.finish()
        num_classes = max(self._tally.counts.shape[2], self._recast.counts.shape[2])
        counts = widened(self._tally.counts, num_classes)
        counts = counts + widened(self._recast.counts, num_classes)
        rows = range(len(plan.perturbations))
        return Counted(
            counts=counts,
            execution=prepared.execution,
            clean_label=clean_label,
            precisions=tuple(map(self._precision, rows)),
            changed_votes=tuple(map(self._changed_votes, rows)),
        )

    def _precision(self, row: int) -> str:
        reason = self._low.reasons[row]
        return CHECKED if reason is None else FLOAT32.format(reason)

    def _changed_votes(self, row: int) -> ChangedVotes | None:
        if not self._low.is_used(row):
            return None
        return self._recast.changed_votes(
            row,
            num_votes=len(self._plan.images) * len(self._plan.span),
            num_low=int(self._num_low[:, row].sum()),
        )

    def __call__(self, index: int) -> None:
        """Counts the votes of an image under each perturbation."""
        plan, scratch = self._plan, self._own.scratch
        image = np.asarray(plan.images[index], dtype=np.float32)
        # Float32's votes on calibration copies are counted as they are.
        known = self._low.known.of(index, plan.span)
        counts = _votes(known, plan.classifier.num_classes or 1)
        left = range(plan.span.start + known.shape[1], plan.span.stop)
        stream = Stream(plan.seed, int(plan.keys[index]), first_draw=left.start, scratch=scratch)
        for first in left[:: self._chunk]:
            draws = min(self._chunk, left.stop - first)
            copies = scratch.array("copies", (draws, *image.shape))
            for row, perturbation in enumerate(plan.perturbations):
                check_stopped()
                # The same draws for each perturbation; `copies` is filled again and again.
                perturbation.copies(stream, image, draws, copies)
                labels = self._labels(index, row, stream, copies)
                counts = widened(counts, int(labels.max(initial=-1)) + 1)
                counts[row] += np.bincount(labels, minlength=counts.shape[1])
            stream.turn(draws)
        self._tally.put(index, counts[None])

    def _labels(
        self, index: int, row: int, stream: Stream, copies: Float32[np.ndarray, "B ..."]
    ) -> Int[np.ndarray, " V"]:
        """Returns the votes that are certain; copies of all others wait for a full block."""
        if not self._low.is_used(row):
            return self._prepared.classify(copies, self._block_size)
        twin = self._low.twin
        labels, margins = labels_and_margins(twin, twin.answers(copies, self._block_size))
        is_sure = margins > self._low.bounds[row]
        is_audited = is_sure & audited(stream, self._plan.perturbations[row].name, len(copies))
        self._num_low[index, row] += int(is_sure.sum())
        again = np.flatnonzero(~is_sure | is_audited)
        if again.size:
            self._pool().add(
                Recast(
                    copies=copies[again],
                    image=np.full(len(again), index),
                    row=np.full(len(again), row),
                    low=labels[again],
                    is_audited=is_audited[again],
                )
            )
        return np.asarray(labels[is_sure & ~is_audited])

    def _pool(self) -> Pool:
        if not hasattr(self._pools, "own"):
            self._pools.own = self._recast.pool()
        pool: Pool = self._pools.own
        return pool


def _votes(labels: Int[np.ndarray, "S d"], num_classes: int) -> Int[np.ndarray, "S K"]:
    """Returns counts of known labels under each perturbation."""
    num_classes = max(num_classes, int(labels.max(initial=-1)) + 1)
    votes = [np.bincount(own, minlength=num_classes) for own in labels]
    return np.stack(votes).astype(np.int64)
