"""Novelty of points among clean ones: distance to the nearest, and one-sided evidence.

Points are centred by class and scaled, so that all classes share one cloud of clean points.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import KDTree

# Points that all classes together lend to the centre of each class.
POOLED_POINTS = 10
NUM_NEIGHBOURS = 10
# Added before the logarithm of distances, which may be 0.
SMALL_DISTANCE = 0.1


@dataclass(frozen=True, kw_only=True, eq=False)
class Cloud:
    """Clean points, centred by class and scaled.

    Attributes:
        centres: `(K, F)` of each class.
        scales: `(F,)` standard deviations about the centres, all positive.
        points: `(R, F)` clean points, centred and scaled.
        evidence: `(F,)` of which kind of evidence a high value of a reading is; 0 where of none.
    """

    centres: Float[np.ndarray, "K F"]
    scales: Float[np.ndarray, " F"]
    points: Float[np.ndarray, "R F"]
    evidence: Int[np.ndarray, " F"]

    @classmethod
    def of(
        cls,
        points: Float[np.ndarray, "R F"],
        label: Int[np.ndarray, " R"],
        num_classes: int,
        evidence: Int[np.ndarray, " F"],
    ) -> "Cloud":
        """Learns centres and scales of clean points, at least two.

        Args:
            points: readings.
            label: class of each, below `num_classes`.
            num_classes: K.
            evidence: as the attribute.
        """
        mean = points.mean(axis=0)
        centres = np.empty((num_classes, points.shape[1]))
        for own in range(num_classes):
            same = points[label == own]
            # A class with few points keeps close to the mean of all.
            centres[own] = (same.sum(axis=0) + POOLED_POINTS * mean) / (len(same) + POOLED_POINTS)
        centred = points - centres[label]
        # A reading that is the same for all clean points tells nothing of them, but of others.
        scales = np.maximum(centred.std(axis=0), 1e-6)
        return cls(
            centres=centres,
            scales=scales,
            points=_in_rows(centred / scales),
            evidence=evidence,
        )

    def placed(
        self, points: Float[np.ndarray, "N F"], label: Int[np.ndarray, " N"]
    ) -> Float[np.ndarray, "N F"]:
        """Returns points centred and scaled as the clean ones; of an unseen class by their mean."""
        # Labels beyond the clean ones have no centre: the mean of all centres stands in.
        centres = np.vstack([self.centres, self.centres.mean(axis=0)])
        return _in_rows((points - centres[np.minimum(label, len(self.centres))]) / self.scales)

    def scores(self, placed: Float[np.ndarray, "N F"]) -> Float[np.ndarray, " N"]:
        """Computes novelty, `(N,)`: higher is less like clean points.

        The mean of two numbers in standard deviations of the clean points: ln(mean distance to the
        `NUM_NEIGHBOURS` nearest clean points + 0.1); and the mean over the kinds of evidence of
        ln(1 + sum of the squares of the readings above 0), in standard deviations each. Readings x
        count as sign(x) ln(1 + |x|): several that are somewhat high tell more of a trigger than one
        that is very high, which odd clean inputs have.

        Args:
            placed: points as `placed` returns them.
        """
        points, number = self._compressed(placed), min(NUM_NEIGHBOURS, len(self.points))
        # Each pair on its own: a distance does not depend on the other points of the call.
        distances, _ = self._tree.query(points, k=[*range(1, number + 1)])
        found = (_log_mean(np.asarray(distances)), *self._evidence_of(points))
        novelty, *kinds = (
            (each - mean) / std for each, (mean, std) in zip(found, self._usual, strict=True)
        )
        return np.asarray((novelty + sum(kinds) / max(len(kinds), 1)) / 2)

    def _compressed(self, placed: Float[np.ndarray, "N F"]) -> Float[np.ndarray, "N F"]:
        return _in_rows(_signed_log(placed) / self._spread)

    @cached_property
    def _spread(self) -> Float[np.ndarray, " F"]:
        """Standard deviations of the clean points once they are compressed."""
        return np.asarray(np.maximum(_signed_log(self.points).std(axis=0), 1e-6))

    @cached_property
    def _clean(self) -> Float[np.ndarray, "R F"]:
        return self._compressed(self.points)

    @cached_property
    def _tree(self) -> KDTree:
        return KDTree(self._clean)

    @cached_property
    def _usual(self) -> tuple[tuple[float, float], ...]:
        """Mean and standard deviation over the clean points, of distances and of each evidence."""
        # The nearest point of a clean one is itself, and does not count.
        number = min(NUM_NEIGHBOURS + 1, len(self.points))
        distances, _ = self._tree.query(self._clean, k=[*range(2, number + 1)])
        numbers = (_log_mean(np.asarray(distances)), *self._evidence_of(self._clean))
        return tuple((float(each.mean()), max(float(each.std()), 1e-6)) for each in numbers)

    def _evidence_of(self, points: Float[np.ndarray, "N F"]) -> tuple[Float[np.ndarray, " N"], ...]:
        """Returns ln(1 + sum of squares above 0) of each kind of evidence."""
        kinds = [kind for kind in np.unique(self.evidence) if kind]
        above = [_in_rows(np.maximum(points[:, self.evidence == kind], 0)) for kind in kinds]
        return tuple(np.log1p((each**2).sum(axis=1)) for each in above)


def _signed_log(values: Float[np.ndarray, "N F"]) -> Float[np.ndarray, "N F"]:
    return np.asarray(np.sign(values) * np.log1p(np.abs(values)))


def _log_mean(distances: Float[np.ndarray, "N J"]) -> Float[np.ndarray, " N"]:
    return np.asarray(np.log(distances.mean(axis=1) + SMALL_DISTANCE))


def _in_rows(points: Float[np.ndarray, "N F"]) -> Float[np.ndarray, "N F"]:
    """Returns points whose values lie beside each other in memory.

    The order in which a sum over them is rounded depends on where they lie: so it is the same for
    one point and for many, and for points that come from a file.
    """
    return np.ascontiguousarray(points)
