"""Reading of a profile's votes against clean ones, after some number of draws."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from wobbliness.detectors.guards.vote_reading import READINGS, ProfileVotes, read_votes
from wobbliness.statistics.conformal import RANK_STEPS
from wobbliness.statistics.expected_votes import ExpectedVotes
from wobbliness.statistics.novelty import Cloud

# What theory gives a sign: triggered inputs stay (1), or go where no clean input goes (2).
EVIDENCE = {"agreement": 1, "confidence": 1, "destinations": 2}


@dataclass(frozen=True, kw_only=True, eq=False)
class ProfileStage:
    """Clean votes after some number of draws.

    Attributes:
        expected: votes of the reference inputs by predicted class.
        cloud: their readings.
        calibration: `(C,)` ascending scores of the calibration inputs.
    """

    expected: ExpectedVotes
    cloud: Cloud
    calibration: Float[np.ndarray, " C"]

    @classmethod
    def fitted(
        cls, reference: ProfileVotes, calibration: ProfileVotes, ties: Float[np.ndarray, " C"]
    ) -> "ProfileStage":
        """Learns clean votes.

        Args:
            reference: of clean inputs that others are compared with.
            calibration: of other clean inputs.
            ties: of the calibration inputs.
        """
        num_classes = reference.counts.shape[2]
        expected = ExpectedVotes.among(reference.counts, reference.label)
        # Each without its own votes: an input is not compared with itself.
        own = expected.of(reference.label, reference.draws, without=reference.counts)
        readings = read_votes(reference, own)
        kinds = np.array([EVIDENCE.get(name, 0) for name in READINGS[: len(readings)]])
        cloud = Cloud.of(
            _as_points(readings),
            reference.label,
            num_classes,
            np.repeat(kinds, readings.shape[1]),
        )
        stage = cls(expected=expected, cloud=cloud, calibration=np.empty(0))
        scores = np.sort(stage.scores(stage.placed(calibration), ties))
        return cls(expected=expected, cloud=cloud, calibration=scores)

    def expected_of(self, votes: ProfileVotes) -> Float[np.ndarray, "S N K"]:
        """Returns the shares of the votes of clean inputs of the same predictions."""
        known = self.expected.widened(votes.counts.shape[2])
        return known.of(votes.label, votes.draws)

    def placed(self, votes: ProfileVotes) -> Float[np.ndarray, "N F"]:
        """Returns readings in standard deviations from clean inputs of the same prediction."""
        expected = self.expected_of(votes)
        readings = read_votes(votes.widened(expected.shape[2]), expected)
        return self.cloud.placed(_as_points(readings), votes.label)

    def scores(
        self, placed: Float[np.ndarray, "N F"], ties: Float[np.ndarray, " N"]
    ) -> Float[np.ndarray, " N"]:
        """Computes scores, `(N,)`: low where votes are unlike those of clean inputs.

        In steps of 2^-20, with the tie-breaker within a step.
        """
        steps = np.floor(-self.cloud.scores(placed) * RANK_STEPS)
        return np.asarray((steps + ties) / RANK_STEPS)


def _as_points(readings: Float[np.ndarray, "R P N"]) -> Float[np.ndarray, "N F"]:
    return readings.reshape(-1, readings.shape[2]).T
