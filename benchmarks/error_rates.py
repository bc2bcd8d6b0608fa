"""Error rates of sequential decisions about the true W.

They are those of simulated images of known probabilities, in 10,000 runs each. The threshold lies
just beside the true W, on either side, which is the hardest place; exact 95 % intervals. The
distributions and the simulation are those of tests/helpers/simulated_votes.py. Run: python
benchmarks/error_rates.py
"""

import sys
from pathlib import Path

import numpy as np
from scipy import stats

from wobbliness.statistics.sequential import boundaries as stopping
from wobbliness.statistics.two_sample import rate

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
from simulated_votes import DISTRIBUTIONS, ERROR_RATE, MAX_DRAWS, RUNS, first_crossings, simulate

if __name__ == "__main__":
    print(f"error rate {ERROR_RATE}, at most {MAX_DRAWS} draws, {RUNS} runs")
    for name, shares in DISTRIBUTIONS.items():
        p = np.array(shares)
        votes = simulate(p)
        for side, wrong in (
            (0.999, 1),
            (1.001, 0),
        ):  # threshold as a part of W; the verdict that is wrong there
            threshold = float(stats.entropy(p) * side)
            if threshold >= np.log(len(p)):
                continue
            rule = stopping.true_boundaries(
                threshold, num_classes=len(p), error_rate=ERROR_RATE, max_draws=MAX_DRAWS
            )
            found = rate(int((first_crossings(*votes, rule)[0] == wrong).sum()), RUNS)
            said = "called below" if wrong else "called not below"
            print(
                f"{name:<26} W {stats.entropy(p):.3f}: {said:<17} "
                f"{found.estimate:.4f} [{found.lower:.4f}, {found.upper:.4f}]"
            )
