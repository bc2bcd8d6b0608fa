"""Tallies of votes and scores that the threads of a measurement share, image by image."""

import threading

import numpy as np
from jaxtyping import Int

from wobbliness.sampling.plan import Plan
from wobbliness.sampling.score_sums import ScoreSums, probabilities_of


class VoteTally:
    """Votes of all images; a column is added when a class beyond the last one is first named."""

    def __init__(self, num_images: int, num_sigmas: int, num_classes: int) -> None:
        """Starts without a vote."""
        self.counts = np.zeros((num_images, num_sigmas, num_classes), dtype=np.int64)
        self._lock = threading.Lock()

    def put(self, first: int, votes: Int[np.ndarray, "M S K"]) -> None:
        """Keeps the votes of images from the first one on; for several threads."""
        # Another thread may replace the counts by wider ones.
        with self._lock:
            self.counts = widened(self.counts, votes.shape[2])
            self.counts[first : first + len(votes), :, : votes.shape[2]] = votes


class ScoreTally:
    """Sums of the probabilities of all images; each thread writes the rows of its own images."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._rows: dict[tuple[int, int], ScoreSums] = {}

    def add(self, index: int, row: int, answers: np.ndarray) -> None:
        """Adds the scores of some copies of an image under a perturbation."""
        probabilities = probabilities_of(answers, self._plan.scores)
        made = ScoreSums.of_copies(probabilities)
        before = self._rows.get((index, row))
        self._rows[index, row] = made if before is None else before + made

    def sums(self, clean: np.ndarray) -> ScoreSums:
        """Returns the sums `(N, S, ...)`, with the answers to the images as they are."""
        plan = self._plan
        # In the order of the images, whichever thread was first.
        rows = [
            [self._rows[index, row] for row in range(len(plan.perturbations))]
            for index in range(len(plan.images))
        ]
        return ScoreSums.stacked(rows, clean=probabilities_of(clean, plan.scores))


def widened(counts: Int[np.ndarray, "... K"], num_classes: int) -> Int[np.ndarray, "... L"]:
    """Adds columns for `num_classes` at least: any call may predict a class beyond the last."""
    missing = num_classes - counts.shape[-1]
    return counts if missing <= 0 else np.pad(counts, [(0, 0)] * (counts.ndim - 1) + [(0, missing)])
