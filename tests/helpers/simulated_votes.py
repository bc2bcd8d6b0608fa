"""Simulated votes of images whose class probabilities are known."""

import numpy as np

RUNS, MAX_DRAWS, ERROR_RATE = 10_000, 250, 0.05


DISTRIBUTIONS = {
    "two classes": [0.95, 0.05],
    "two even classes": [0.5, 0.5],
    "one stray class of ten": [0.97, 0.03] + [0.0] * 8,
    "strays spread over ten": [0.91] + [0.01] * 9,
    "three leaders": [0.4, 0.35, 0.25],
    "leader below a half": [0.4] + [0.6 / 9] * 9,
}


def simulate(p, *, runs=RUNS, seed=0):
    """Returns `(runs, MAX_DRAWS, K)` running counts and the `(runs,)` first labels."""
    labels = np.random.default_rng(seed).choice(len(p), size=(runs, MAX_DRAWS), p=p)
    return (labels[:, :, None] == np.arange(len(p))).astype(np.int16).cumsum(
        axis=1, dtype=np.int16
    ), labels[:, 0]


def votes_for_second(counts, first):
    """Returns `(runs, MAX_DRAWS)` votes for the first disagreeing class, 0 before it."""
    rows, others = np.arange(len(counts)), counts.copy()
    others[rows, :, first] = 0
    when = (others.sum(axis=2) > 0).argmax(axis=1)
    return others[rows, :, others[rows, when].argmax(axis=1)]


def first_crossings(counts, first, rule):
    """Returns `(runs,)` verdicts (1 below, 0 not below, -1 undecided) and the draws used.

    An interim analysis follows every draw.
    """
    draws, rows = np.arange(1, MAX_DRAWS + 1), np.arange(len(counts))
    column = np.minimum(votes_for_second(counts, first), rule.max_beyond.shape[1] - 1)
    of_first = draws - counts[rows, :, first]
    below = of_first - column <= rule.max_beyond[draws, column]
    ranked = np.sort(counts, axis=2)
    column = np.minimum(draws - ranked[:, :, -2:].sum(axis=2), rule.min_disagreements.shape[1] - 1)
    above = draws - ranked[:, :, -1] >= rule.min_disagreements[draws, column]
    either = below | above
    stop = np.where(either.any(axis=1), either.argmax(axis=1), MAX_DRAWS - 1)
    return np.where(below[rows, stop], 1, np.where(above[rows, stop], 0, -1)), stop + 1
