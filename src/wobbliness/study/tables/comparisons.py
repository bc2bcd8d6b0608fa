"""Comparisons of batches, from the table of points.

Sigma chosen on clean batches, batch tests, negative controls.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from wobbliness.detectors.inputs.noise_level import (
    BatchTest,
    choose_sigma,
    directional_pvalues,
    levene_pvalues,
    levene_pvalues_all_points,
)
from wobbliness.statistics.row_tests import levene_rows, mann_whitney_rows
from wobbliness.statistics.two_sample import rate
from wobbliness.study.recipes import Recipe

Pair = tuple[np.ndarray, np.ndarray]
"""W of a clean batch and of a suspect one."""

PAPER_BATCH = 25  # points of each batch in the paper's Fig. 4
LEVEL = 0.05  # of the negative controls

TESTS: dict[str, BatchTest] = {
    "levene": levene_pvalues,
    "levene, all points": levene_pvalues_all_points,
    "directional": directional_pvalues,
}
"""The three tests by their name in tables and figures.

Each is used at the sigma chosen for it on clean points.
"""

PVALUE_COLUMNS = {
    "levene": "levene_pvalue",
    "levene, all points": "levene_pvalue_all_points",
    "directional": "directional_pvalue",
}
CHOSEN_COLUMNS = {test: f"{column}_chosen" for test, column in PVALUE_COLUMNS.items()}
"""Columns of the table of tests: whether the row's sigma is the one chosen for the test."""

MIN_ATTACK_SUCCESS = (
    0.5  # share of attacker's labels from which a trigger counts as working, trained on or not
)

CONTROL_COLUMNS = ("kind", "trigger", "wobbliness", "accuracy_on_attacker_labels")
CONTROL_KINDS = (
    "clean against clean",
    "clean network, trigger",
    "poisoned network, other trigger",
    "poisoned network, other trigger that works",
)

SIGMA_KEYS = ["claims", "network", "batch_size"]
GRID_KEYS = ("network", "batch_size", "sigma")
SUSPECT_KEYS = ("batch", "claims", "trigger", "kind", "is_other_class")
Batch = tuple[tuple[Any, ...], np.ndarray]


def choose_sigmas(points: pd.DataFrame) -> pd.DataFrame:
    """Chooses sigma on the calibration batch of each network, for each test."""
    rows: list[dict[str, object]] = []
    calibration = points[points.batch == "calibration"] if len(points) else points
    if calibration.empty:
        return pd.DataFrame(columns=[*SIGMA_KEYS, "test", "sigma", "power", "reached"])
    for keys, group in calibration.groupby(SIGMA_KEYS, sort=False):
        clean_w = {sigma: rows.wobbliness.to_numpy() for sigma, rows in group.groupby("sigma")}
        for name, test in TESTS.items():
            choice = choose_sigma(clean_w, batch_size=keys[-1], test=test)
            rows.append(dict(zip(SIGMA_KEYS, keys, strict=True)) | {"test": name, **vars(choice)})
    return pd.DataFrame(rows)


def batch_tests(points: pd.DataFrame, sigma: pd.DataFrame) -> pd.DataFrame:
    """Tests each suspect batch against the clean batch of its network.

    So also the second clean batch. Networks of which one of the two is not recorded are left out.
    """
    rows: list[dict[str, object]] = []
    pairs: list[Pair] = []
    if points.empty:
        return points
    wobbliness = points.wobbliness.to_numpy()
    chosen = {
        keys: rows.set_index("test").sigma
        for keys, rows in sigma.groupby(["network", "batch_size"], sort=False)
    }
    for keys, batches in _batches(points).items():
        of_clean = [positions for names, positions in batches if names[0] == "clean"]
        if not of_clean:
            continue
        clean = wobbliness[np.sort(np.concatenate(of_clean))]
        found = dict(zip(GRID_KEYS, keys, strict=True))
        found |= {
            column: bool(chosen[keys[:2]][test] == keys[2])
            for test, column in CHOSEN_COLUMNS.items()
        }
        for row, suspect in _suspects(points, batches):
            for is_full, pair in _equal_sizes(clean, wobbliness[suspect]):
                rows.append(found | row | {"is_full": is_full})
                pairs.append(pair)
    return pd.concat([pd.DataFrame(rows), _tests(pairs)], axis=1)


def _batches(points: pd.DataFrame) -> dict[tuple[Any, ...], list[Batch]]:
    """Returns the batches of each network, batch size and sigma, all in order of their first rows.

    A batch is its values of SUSPECT_KEYS and the positions of its rows.
    """
    # grouped once, by all keys: a group of groups costs a frame and its index each time
    found = points.groupby([*GRID_KEYS, *SUSPECT_KEYS], sort=False).indices
    batches: defaultdict[tuple[Any, ...], list[Batch]] = defaultdict(list)
    for keys, positions in sorted(found.items(), key=lambda item: int(item[1][0])):
        batches[keys[: len(GRID_KEYS)]].append((keys[len(GRID_KEYS) :], positions))
    return batches


def _suspects(
    points: pd.DataFrame, batches: Iterable[Batch]
) -> Iterator[tuple[dict[str, object], np.ndarray]]:
    """Yields the columns of each suspect batch, and of the second clean one, and its positions."""
    success = points.accuracy_on_attacker_labels.to_numpy()
    for keys, positions in batches:
        if keys[0] in ("suspect", "second clean"):
            found = dict(zip(SUSPECT_KEYS, keys, strict=True))
            row = {name: found[name] for name in ("claims", *SUSPECT_KEYS)}
            yield row | {"attack_success": success[positions[0]]}, positions


def _equal_sizes(clean: np.ndarray, suspect: np.ndarray) -> Iterator[tuple[bool, Pair]]:
    """Yields the first points of both batches, at the paper's batch size and at the full one."""
    limit = min(len(clean), len(suspect))
    for size in sorted({min(PAPER_BATCH, limit), limit}):
        yield size == limit, (clean[:size], suspect[:size])


def _tests(pairs: Sequence[Pair]) -> pd.DataFrame:
    """Computes all tests of each pair of batches, in the order of the pairs."""
    frames = []
    for positions, clean, suspect in _stacks(pairs):
        levene, directional = levene_rows(clean, suspect), mann_whitney_rows(clean, suspect)
        columns = {
            "num_points": clean.shape[1],
            "clean_mean": clean.mean(axis=1),
            "suspect_mean": suspect.mean(axis=1),
            "levene_pvalue": levene.pvalue,
            "num_removed_clean": levene.num_removed_clean,
            "num_removed_suspect": levene.num_removed_suspect,
            "levene_pvalue_all_points": levene.pvalue_all_points,
            "directional_pvalue": directional.pvalue,
            "effect_size": directional.statistic / (clean.shape[1] * suspect.shape[1]),
        }
        frames.append(pd.DataFrame(columns, index=positions))
    return pd.concat(frames).sort_index() if frames else pd.DataFrame()


def _stacks(pairs: Iterable[Pair]) -> Iterator[tuple[list[int], np.ndarray, np.ndarray]]:
    """Yields the pairs of each size as rows, with their positions in the order of all pairs."""
    of_size: defaultdict[tuple[int, int], list[tuple[int, Pair]]] = defaultdict(list)
    for position, (clean, suspect) in enumerate(pairs):
        of_size[clean.size, suspect.size].append((position, (clean, suspect)))
    # tests are vectorised over pairs of equal sizes
    for group in of_size.values():
        clean_rows, suspect_rows = (np.stack([pair[side] for _, pair in group]) for side in (0, 1))
        yield [position for position, _ in group], clean_rows, suspect_rows


def full_batches(tests: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows that compare whole batches, not the paper's smaller ones."""
    return tests[tests.is_full]


def negative_controls(points: pd.DataFrame, sigma: pd.DataFrame, recipe: Recipe) -> pd.DataFrame:
    """Computes how often p is below the level without an active trigger.

    On random pairs of batches, at the sigma chosen for each test.
    """
    rows = []
    # the columns needed: rows are taken from all columns of a frame
    kept = points[list(CONTROL_COLUMNS)] if len(points) else points
    groups = points.groupby(list(GRID_KEYS), sort=False).indices if len(points) else {}
    for name, test in TESTS.items():
        chosen = sigma[sigma.test == name] if len(points) else sigma
        pools = _control_pools(
            kept.iloc[groups[row.network, row.batch_size, row.sigma]] for row in chosen.itertuples()
        )
        for kind in dict.fromkeys(kind for kind, _, _ in pools):
            pairs = _random_pairs(
                [(clean, suspect) for of_kind, clean, suspect in pools if of_kind == kind], recipe
            )
            num_below = sum(
                int(np.sum(test(clean, suspect) <= LEVEL)) for _, clean, suspect in _stacks(pairs)
            )
            # a binomial proportion with its interval, to compare with the level
            below = rate(num_below, recipe.control_pairs)
            rows.append(
                {
                    "pairs": kind,
                    "test": name,
                    "level": LEVEL,
                    "batch_size": recipe.control_points,
                    **vars(below),
                }
            )
    return pd.DataFrame(rows)


def _control_pools(
    networks: Iterable[pd.DataFrame],
) -> list[tuple[str, np.ndarray, np.ndarray | None]]:
    """Returns the pools of W that each network and trigger gives for random pairs.

    (kind of pair, W of clean points, W of triggered points or None for clean against clean).

    Args:
        networks: the points of each network and batch size, at the sigma chosen there.
    """
    pools: list[tuple[str, np.ndarray, np.ndarray | None]] = []
    for here in networks:
        clean = here[here.kind == "clean"].wobbliness.to_numpy()
        pools.append(("clean against clean", clean, None))
        for _, group in here[here.kind == "inactive"].groupby("trigger", sort=False):
            pools.append((_untrained_kind(group), clean, group.wobbliness.to_numpy()))
    return sorted(pools, key=lambda pool: CONTROL_KINDS.index(pool[0]))


def _untrained_kind(batch: pd.DataFrame) -> str:
    """Returns the kind of pair of a batch with an untrained trigger.

    Some patterns activate a backdoor that was planted with another one: they are untrained, but
    hardly inactive.
    """
    success = batch.accuracy_on_attacker_labels.iloc[0]
    if success is None or np.isnan(success):
        return CONTROL_KINDS[1]
    return CONTROL_KINDS[3] if success >= MIN_ATTACK_SUCCESS else CONTROL_KINDS[2]


def _random_pairs(
    pools: list[tuple[np.ndarray, np.ndarray | None]], recipe: Recipe
) -> Iterator[Pair]:
    rng = np.random.default_rng(np.random.SeedSequence(recipe.seed))
    for index in range(recipe.control_pairs):
        clean, suspect = pools[index % len(pools)]
        size = min(
            recipe.control_points,
            len(clean) // 2 if suspect is None else min(len(clean), len(suspect)),
        )
        # clean against clean: two disjoint halves of one random order
        drawn = rng.permutation(clean)
        yield (
            drawn[:size],
            drawn[size : 2 * size] if suspect is None else rng.permutation(suspect)[:size],
        )
