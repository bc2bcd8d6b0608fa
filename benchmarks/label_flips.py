"""Certified label flips of a linear head on two digits, by votes of trainings and in closed form.

    python benchmarks/label_flips.py [RIDGE]        # 30, as in docs/perturbations.md

The head is by ridge least squares on the pixels of 200 digits, 0 or 6.
"""

import sys

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import Ridge

from wobbliness.perturbations import LabelFlip
from wobbliness.sampling.trainings import measure_trainings
from wobbliness.statistics import certificates, label_flips

NUM_KNOWN, DRAWS = 200, 1000
SHARES = (0.05, 0.1, 0.2, 0.3, 0.4)


def main():
    ridge = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    pixels, digit = load_digits(return_X_y=True)
    is_used = np.isin(digit, (0, 6))
    pixels, labels = pixels[is_used] / 16, (digit[is_used] == 6).astype(int)
    known, points = pixels[:NUM_KNOWN], pixels[NUM_KNOWN:]
    weights = label_flips.ridge_weights(known, points, ridge)

    def train(flipped):
        head = Ridge(alpha=ridge, fit_intercept=False).fit(known, flipped)
        return lambda inputs: (head.predict(inputs) >= 0.5).astype(int)

    for share in SHARES:
        votes = measure_trainings(train, labels[:NUM_KNOWN], points, LabelFlip(share), DRAWS)
        lower = certificates.top_probability(votes.counts)
        by_votes = certificates.label_flip_radius(lower, share)
        closed = label_flips.flipped_head_radius(weights, labels[:NUM_KNOWN], share)
        print(
            f"share {share:g}: accuracy {(votes.label == labels[NUM_KNOWN:]).mean():.3f}, mean W "
            f"{votes.wobbliness.mean():.4f}, certified flips (median, most): votes "
            f"{np.median(by_votes):g}, {by_votes.max()}; closed form {np.median(closed):g}, "
            f"{closed.max()}"
        )


if __name__ == "__main__":
    main()
