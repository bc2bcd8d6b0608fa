"""Schedule of the cost of large masks in Neural Cleanse, with its test of convergence."""

import numpy as np
from jaxtyping import Bool, Float

COST_FACTOR_UP = 2.0
COST_FACTOR_DOWN = COST_FACTOR_UP**1.5
NO_PROGRESS_RATIO = 0.99  # a best norm of at least this share of the one before is no progress
PATIENCES_TO_STOP = 5


class CostSchedule:
    """Published schedule of Neural Cleanse's cost, for many candidates at a time.

    The cost starts at 0, where any mask is free, and is set to `initial_cost` once the success has
    been at the threshold for `patience` steps running. From then on it is doubled after `patience`
    steps in a row at the threshold, and divided by 2 ** 1.5 after as many below it. A candidate
    stops when its best norm made no progress for `5 * patience` steps, but not before the cost went
    both ways. After `visualizer.py` of Wang et al., "Neural Cleanse", IEEE S&P 2019.

    Attributes:
        costs: `(n,)` loss (nats) for each pixel of mask.
        best_norms: `(n,)` smallest mean L1 norm (pixels) of a step at the threshold; infinity
            before the first.
        stopped: `(n,)` whether the candidate has converged; what it gets afterwards is ignored.
    """

    def __init__(
        self, num_candidates: int, *, initial_cost: float, success_threshold: float, patience: int
    ) -> None:
        """Starts all candidates at cost 0.

        Args:
            num_candidates: n.
            initial_cost: nats for each pixel of mask.
            success_threshold: share of a step's images that must be predicted as the target, in
                (0, 1].
            patience: steps.
        """
        self.costs = np.zeros(num_candidates)
        self.best_norms = np.full(num_candidates, np.inf)
        self.stopped = np.zeros(num_candidates, dtype=bool)
        self._initial_cost, self._threshold = initial_cost, success_threshold
        self._patience = patience
        counters = np.zeros((4, num_candidates), dtype=np.int64)
        self._steps_without_progress, self._steps_at_no_cost = counters[:2]
        self._steps_above, self._steps_below = counters[2:]
        self._went_up, self._went_down = np.zeros((2, num_candidates), dtype=bool)

    def update(
        self, success_rates: Float[np.ndarray, " n"], norms: Float[np.ndarray, " n"]
    ) -> Bool[np.ndarray, " n"]:
        """Records one step of each candidate; returns which were at the threshold, `(n,)`.

        Candidates that had stopped before do not count.
        """
        # The order is the published one: progress first, then the cost.
        reached = success_rates >= self._threshold
        is_hit = reached & ~self.stopped
        # A candidate that has stopped keeps its best norm.
        self._watch_progress(np.where(is_hit & (norms < self.best_norms), norms, self.best_norms))
        # Stopped candidates keep the cost they stopped with.
        costs = self.costs
        self._set_cost(reached)
        self._scale_cost(reached)
        self.costs = np.where(self.stopped, costs, self.costs)
        return np.asarray(is_hit)

    def _watch_progress(self, best_norms: Float[np.ndarray, " n"]) -> None:
        # No success yet is not a lack of progress: the best norm is infinite before the first one.
        is_idle = np.isfinite(best_norms) & (best_norms >= NO_PROGRESS_RATIO * self.best_norms)
        self._steps_without_progress = np.where(is_idle, self._steps_without_progress + 1, 0)
        self.best_norms = best_norms
        is_done = (
            self._went_up
            & self._went_down
            & (self._steps_without_progress >= PATIENCES_TO_STOP * self._patience)
        )
        self.stopped = self.stopped | is_done

    def _set_cost(self, reached: Bool[np.ndarray, " n"]) -> None:
        """Ends the phase without cost.

        Without its test of `cost == 0` a zero cost would be doubled for ever.
        """
        self._steps_at_no_cost = np.where(
            (self.costs == 0) & reached, self._steps_at_no_cost + 1, 0
        )
        is_set = self._steps_at_no_cost >= self._patience
        self.costs = np.where(is_set, self._initial_cost, self.costs)
        # The phase with cost starts with its counters at 0.
        for counter in (self._steps_above, self._steps_below, self._went_up, self._went_down):
            counter[is_set] = 0

    def _scale_cost(self, reached: Bool[np.ndarray, " n"]) -> None:
        self._steps_above = np.where(reached, self._steps_above + 1, 0)
        self._steps_below = np.where(reached, 0, self._steps_below + 1)
        # Both counters count running steps, so at most one of them is at the patience.
        goes_up = self._steps_above >= self._patience
        goes_down = self._steps_below >= self._patience
        lowered = np.where(goes_down, self.costs / COST_FACTOR_DOWN, self.costs)
        self.costs = np.where(goes_up, self.costs * COST_FACTOR_UP, lowered)
        self._steps_above[goes_up] = 0
        self._steps_below[goes_down] = 0
        self._went_up |= goes_up
        self._went_down |= goes_down
