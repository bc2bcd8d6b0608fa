"""Copies that low precision doubts, gathered over images and voted on by float32 in full blocks."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float32, Int

from wobbliness.sampling.counting.changed_votes import ChangedVotes
from wobbliness.sampling.counting.tallies import widened
from wobbliness.sampling.plan import Prepared


@dataclass(frozen=True, kw_only=True, eq=False)
class Recast:
    """Copies that are voted on again, with what is known of them.

    Attributes:
        copies: `(B, ...)`.
        image: `(B,)` places of their images.
        row: `(B,)` of their perturbations.
        low: `(B,)` votes of low precision.
        is_audited: `(B,)` whether low precision did not doubt its vote.
    """

    copies: Float32[np.ndarray, "B ..."]
    image: Int[np.ndarray, " B"]
    row: Int[np.ndarray, " B"]
    low: Int[np.ndarray, " B"]
    is_audited: Bool[np.ndarray, " B"]

    def part(self, rows: slice) -> "Recast":
        """Returns some of the copies, still in the memory of all."""
        return Recast(**{name: array[rows] for name, array in vars(self).items()})

    @classmethod
    def joined(cls, parts: "Sequence[Recast]") -> "Recast":
        """Returns the copies of all parts, in memory of their own."""
        names = list(cls.__dataclass_fields__)
        return cls(**{name: np.concatenate([vars(part)[name] for part in parts]) for name in names})


def in_whole_blocks(
    prepared: Prepared, copies: Float32[np.ndarray, "B ..."]
) -> Int[np.ndarray, " B"]:
    """Returns float32's classes of copies; the last block is filled up with the copies themselves.

    Blocks are always of one size: a network's rounding may depend on it.
    """
    block_size = prepared.execution.block_size or 1
    num_rows = -(-len(copies) // block_size) * block_size
    whole = np.resize(copies, (num_rows, *copies.shape[1:]))
    return prepared.classify(whole, block_size)[: len(copies)]


class RecastTally:
    """Float32's votes on copies that were gathered, and what the audit found; for all threads."""

    def __init__(
        self, prepared: Prepared, num_images: int, num_rows: int, num_classes: int
    ) -> None:
        """Starts without a vote.

        Args:
            prepared: the classifier in float32.
            num_images: N.
            num_rows: S, perturbations.
            num_classes: K.
        """
        self._prepared, self._block_size = prepared, prepared.execution.block_size or 1
        self.counts = np.zeros((num_images, num_rows, num_classes), np.int64)
        self.num_audited, self.num_changed = np.zeros((2, num_rows), np.int64)
        self._lock = threading.Lock()
        self._pools: list[Pool] = []

    def pool(self) -> "Pool":
        """Returns a pool for one thread."""
        pool = Pool(self, self._block_size)
        with self._lock:
            self._pools.append(pool)
        return pool

    def finish(self) -> None:
        """Votes on what is left in the pools, the last block filled up with its own copies."""
        left = [part for pool in self._pools for part in pool.waiting if len(part.low)]
        if left:
            self.vote(Recast.joined(left))

    def vote(self, given: Recast) -> None:
        """Counts float32's votes on copies."""
        labels = in_whole_blocks(self._prepared, given.copies)
        is_changed = given.is_audited & (labels != given.low)
        with self._lock:
            self.counts = widened(self.counts, int(labels.max()) + 1)
            np.add.at(self.counts, (given.image, given.row, labels), 1)
            np.add.at(self.num_audited, given.row[given.is_audited], 1)
            np.add.at(self.num_changed, given.row[is_changed], 1)

    def changed_votes(self, row: int, *, num_votes: int, num_low: int) -> ChangedVotes:
        """Returns what the audit found under a perturbation.

        Args:
            row: of the perturbation.
            num_votes: all votes under it.
            num_low: those that low precision did not doubt.
        """
        return ChangedVotes(
            num_votes=num_votes,
            num_low=num_low,
            num_audited=int(self.num_audited[row]),
            num_changed=int(self.num_changed[row]),
        )


@dataclass(eq=False)
class Pool:
    """The copies of one thread that wait for a full block."""

    tally: RecastTally
    block_size: int
    waiting: list[Recast] = field(default_factory=list)

    def add(self, given: Recast) -> None:
        """Adds copies, and has full blocks voted on."""
        # A copy: the memory of the given ones is used for the next.
        self.waiting.append(Recast.joined([given]))
        if sum(len(part.low) for part in self.waiting) < self.block_size:
            return
        whole = Recast.joined(self.waiting)
        num_full = len(whole.low) // self.block_size * self.block_size
        self.tally.vote(whole.part(slice(num_full)))
        self.waiting = [whole.part(slice(num_full, None))]
