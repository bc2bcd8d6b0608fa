"""The share of plug-in entropies that are more than five standard errors off.

The errors are those of the plain delta method and ours. Run: python benchmarks/standard_error.py
"""

import numpy as np
from scipy import special

from wobbliness.statistics.entropy import (
    entropy_standard_error,
    entropy_upper_bound,
    plug_in_entropy,
)

DRAWS, NUM_DISTRIBUTIONS, NUM_REPEATS = 250, 300, 3000


def delta_method(counts):
    """Returns the plain delta method's standard errors.

    Var = (sum_k p_k log^2 p_k - H^2) / n + (K_seen - 1) / (2 n^2), and the 95 % upper bound for
    unanimous votes.
    """
    p = counts / DRAWS
    surprise = -np.log(np.where(p > 0, p, 1.0))
    first_order = (p * surprise**2).sum(axis=1) - (p * surprise).sum(axis=1) ** 2
    num_seen = (counts > 0).sum(axis=1)
    error = np.sqrt(np.maximum(first_order, 0) / DRAWS + (num_seen - 1) / (2 * DRAWS**2))
    if (num_seen == 1).any():
        error[num_seen == 1] = entropy_upper_bound(counts[num_seen == 1])
    return error


def distribution(rng, num_classes):
    """Half of them Dirichlet, half the classes of equal bands under Gaussian noise."""
    if rng.random() < 0.5:
        return rng.dirichlet(np.full(num_classes, rng.choice([0.1, 0.3, 1.0, 10.0])))
    cuts = special.ndtr(
        (np.arange(1, num_classes) / num_classes - rng.random()) / rng.choice([0.05, 0.15, 0.5])
    )
    return np.diff(np.r_[0.0, cuts, 1.0])


def main():
    print(
        f"{'classes':>7} {'method':>8} {'mean share':>11} {'worst share':>12} "
        f"{'stated / true error, median':>28}"
    )
    for num_classes in (2, 3, 4, 10):
        for name, method in (("delta", delta_method), ("ours", entropy_standard_error)):
            rng, shares, ratios = np.random.default_rng(0), [], []
            for _ in range(NUM_DISTRIBUTIONS):
                p = distribution(rng, num_classes)
                counts = rng.multinomial(DRAWS, p, size=NUM_REPEATS)
                off, stated = plug_in_entropy(counts) - special.entr(p).sum(), method(counts)
                shares.append((np.abs(off) > 5 * stated).mean())
                ratios.append(stated.mean() / max(np.sqrt((off**2).mean()), 1e-12))
            print(
                f"{num_classes:>7} {name:>8} {np.mean(shares):>11.1e} {np.max(shares):>12.1e} "
                f"{np.median(ratios):>28.2f}"
            )


if __name__ == "__main__":
    main()
