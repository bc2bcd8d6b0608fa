"""Votes of sequential tests in checked low precision: doubtful votes are cast again at once.

A sequential test needs the votes of a group of draws before the next one, so that doubtful copies
cannot wait for those of later groups.
"""

import threading

import numpy as np
from jaxtyping import Bool, Float32, Int

from wobbliness.sampling.counting.changed_votes import ChangedVotes
from wobbliness.sampling.counting.doubtful_copies import in_whole_blocks
from wobbliness.sampling.counting.low_precision import LowPrecision, labels_and_margins
from wobbliness.sampling.plan import Prepared


class CheckedGroups:
    """A labeller of groups of copies under one perturbation; for several threads."""

    def __init__(self, prepared: Prepared, low: LowPrecision) -> None:
        """Starts to label.

        Args:
            prepared: the classifier in float32.
            low: the one in low precision.
        """
        self._prepared, self._low = prepared, low
        self._block_size = prepared.execution.block_size or 1
        self._found = ChangedVotes.none_of(0)
        self._lock = threading.Lock()

    @property
    def changed_votes(self) -> ChangedVotes:
        """Returns the result of the audit so far."""
        return self._found

    def classify(
        self, copies: Float32[np.ndarray, "R ..."], is_chosen: Bool[np.ndarray, " B"]
    ) -> Int[np.ndarray, " B"]:
        """Returns the class of each copy.

        Args:
            copies: whole blocks, of which the first B are used.
            is_chosen: `(B,)` whether to audit the vote, where low precision does not doubt it.
        """
        twin, num_used = self._low.twin, len(is_chosen)
        answers = twin.answers(copies, self._block_size)[:num_used]
        labels, margins = labels_and_margins(twin, answers)
        is_sure = margins > self._low.bounds[0]
        is_audited = is_sure & is_chosen
        again = np.flatnonzero(~is_sure | is_audited)
        low = labels[again]
        if again.size:
            labels[again] = in_whole_blocks(self._prepared, copies[again])
        found = ChangedVotes(
            num_votes=num_used,
            num_low=int(is_sure.sum()),
            num_audited=int(is_audited.sum()),
            num_changed=int((is_audited[again] & (labels[again] != low)).sum()),
        )
        with self._lock:
            self._found += found
        return labels
