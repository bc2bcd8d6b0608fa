"""Draws that sequential decisions need on the networks of a study, against the fixed 250.

For every poisoned network and sigma: 250 clean points and 250 others with the active trigger, the
threshold midway between the medians of their W. A star marks the sigma that the clean-only rule
picks for batches of the paper's 25 points (directional test). Run: python benchmarks/decisions.py
runs/fashion-mnist [0.15 0.2 ...]
"""

import sys
from pathlib import Path

import numpy as np
from scipy import special

import wobbliness
from wobbliness.study.records.record import read_recipe
from wobbliness.study.specs import cell_name
from wobbliness.study.training.data import load_data
from wobbliness.study.training.saved_networks import load_network

POINTS, DRAWS, ERROR_RATE, PAPER_BATCH = 250, 250, 0.05, 25
CURTAILED_RATES, NOISE_SEEDS = (0.05, 0.3), (0, 1)


def halves(spec):
    data = load_data(spec.dataset)
    attacked = np.flatnonzero(spec.threat.is_attacked(data.test.labels))
    points = np.random.default_rng(0).permutation(attacked)[: 2 * POINTS]
    clean, suspect = np.array_split(data.test.images[points], 2)
    return np.concatenate([clean, wobbliness.trigger(spec.trigger).apply(suspect)]), len(clean)


def two_sided_reference(labels, num_classes, threshold):
    """Returns how many times fewer draws a plain two-sided sequence takes, and its undecided share.

    It is beta-binomial, on the share of the class named most often so far.
    """
    grid = np.linspace(0, 1 - 1 / num_classes, 2001)[1:]
    lowest = special.entr(grid) + special.entr(1 - grid)
    highest = lowest + grid * np.log(num_classes - 1)
    draws = np.full(len(labels), DRAWS)
    settled = np.zeros(len(labels), bool)
    counts = (labels[:, :, None] == np.arange(num_classes)).cumsum(axis=1)
    for n in range(5, DRAWS + 1, 5):
        strays = n - counts[:, n - 1].max(axis=1)
        evidence = special.betaln(0.5 + strays, 0.5 + n - strays) - special.betaln(0.5, 0.5)
        likelihood = special.xlogy(strays[:, None], grid) + special.xlog1py(
            n - strays[:, None], -grid
        )
        kept = evidence[:, None] - likelihood < np.log(1 / ERROR_RATE)
        upper = np.where(kept, highest, -np.inf).max(axis=1)
        lower = np.where(kept, np.where(grid <= 0.5, lowest, np.log(2)), np.inf).min(axis=1)
        now = ~settled & ((upper < threshold) | (lower >= threshold))
        draws[now], settled = n, settled | now
    return DRAWS / draws.mean(), 1 - settled.mean()


def random_order(counts):
    rng = np.random.default_rng(0)
    return np.stack([rng.permutation(np.repeat(np.arange(len(row)), row)) for row in counts])


def curtailed(network, images, half, sigma, error_rate):
    """Returns how many times fewer draws it takes and the share of decisions that differ, as text.

    They are averages over noise seeds, each with the W and the threshold of its own draws: few
    decisions differ at all.
    """
    found = []
    for seed in NOISE_SEEDS:
        w = wobbliness.measure(network, images, sigma, draws=DRAWS, seed=seed).wobbliness
        threshold = (np.median(w[:half]) + np.median(w[half:])) / 2
        decisions = wobbliness.decide_as_measured(
            network, images, sigma, threshold, error_rate=error_rate, max_draws=DRAWS, seed=seed
        )
        found.append(
            (DRAWS / decisions.draws.mean(), (decisions.is_below != (w < threshold)).mean())
        )
    fewer, differ = np.mean(found, axis=0)
    return f"{fewer:.2f}, {differ:.2%}"


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    recipe = read_recipe(folder)
    sigmas = tuple(map(float, sys.argv[2:])) or recipe.sigmas
    print(f"{'network':<34}{'sigma':>6}{'medians clean / active':>24}{'threshold':>10}", end=" | ")
    print(
        "true W: times fewer, undecided, (two-sided) | "
        f"all draws, error rates {CURTAILED_RATES}: times fewer, disagree"
    )
    for spec in recipe.effect_networks:
        network = load_network(folder / "networks" / f"{cell_name(spec)}.safetensors")
        images, half = halves(spec)
        sweep = wobbliness.sweep(network, images, sigmas, draws=DRAWS)
        clean_w = {sigma: votes.wobbliness[:half] for sigma, votes in sweep.items()}
        chosen = wobbliness.choose_sigma(clean_w, batch_size=PAPER_BATCH).sigma
        for sigma, votes in sweep.items():
            w = votes.wobbliness
            medians = np.median(w[:half]), np.median(w[half:])
            threshold = sum(medians) / 2
            name = f"{spec.architecture} {spec.attack and spec.attack.name} seed {spec.seed}"
            star = "*" if sigma == chosen else ""
            line = (
                f"{name:<34}{star + str(sigma):>6}{medians[0]:>15.3f} / {medians[1]:.3f}"
                f"{threshold:>10.3f}"
            )
            if threshold == 0:
                print(line + " | no threshold")
                continue
            true = wobbliness.decide(
                network, images, sigma, threshold, error_rate=ERROR_RATE, max_draws=DRAWS
            )
            plain = two_sided_reference(
                random_order(votes.counts), votes.counts.shape[1], threshold
            )
            print(
                f"{line} | {DRAWS / true.draws.mean():.2f}, {1 - true.is_decided.mean():.1%} "
                f"({plain[0]:.2f}, {plain[1]:.1%}) | ",
                "; ".join(
                    curtailed(network, images, half, sigma, rate) for rate in CURTAILED_RATES
                ),
                flush=True,
            )
