"""Rates at which `compare_batches` calls a batch smoother or wobblier.

They are its power on active triggers, and false positives on the rest.

For the networks of a study, poisoned under T1 (those of C3) and T3 (those of C7), and clean ones:
pools of test points are measured once, then 200 random pairs for each size of batch and kind of
suspect are compared, the clean batch twice as large, since half of it chooses sigma. Rates with
exact 95 % intervals. Run: python benchmarks/batch_test_rates.py runs/fashion-mnist
[FOLDER_TO_KEEP_MEASUREMENTS_IN]
"""

import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

import wobbliness
from wobbliness.attacks.patch import TRIGGER_NAMES
from wobbliness.statistics.two_sample import rate
from wobbliness.study.cells.base import spec_file
from wobbliness.study.records.record import read_recipe
from wobbliness.study.specs import cell_name
from wobbliness.study.training.data import load_data
from wobbliness.study.training.saved_networks import load_network

SIZES, PAIRS, LEVELS = (25, 50, 100, 250), 200, (0.01, 0.05)
CLEAN_POOL, SUSPECT_POOL = 800, 300
UNTRAINED = ("square", "checkerboard")  # put on images of a network that was not trained on it


def pools(folder, spec, sigmas):
    """Returns W at each sigma of clean points and of points with each pattern.

    All are different points of attacked classes.
    """
    data = load_data(spec.dataset)
    labels, threat = data.test.labels, spec.threat
    eligible = (
        np.arange(len(labels)) if threat is None else np.flatnonzero(threat.is_attacked(labels))
    )
    points = np.random.default_rng(1).permutation(eligible)
    own = None if spec.attack is None else spec.attack.name
    untrained = next(name for name in UNTRAINED if name != own)
    patterns = {"clean": None, "active": own, "inactive": untrained}
    measured, start = {}, 0
    for kind, name in patterns.items():
        if kind == "active" and name is None:
            continue
        stop = start + (CLEAN_POOL if kind == "clean" else SUSPECT_POOL)
        images = data.test.images[points[start:stop]]
        stamped = images if name is None else wobbliness.trigger(name).apply(images)
        measured[kind] = wobbliness.sweep(
            load_network(spec_file(folder, spec)), stamped, sigmas
        ).wobbliness
        start = stop
    return measured


def kept_pools(folder, spec, sigmas, keep):
    """The pools, from the file if it is there."""
    path = keep and keep / f"pools-{cell_name(spec)}.parquet"
    if path is None or not path.is_file():
        measured = pools(folder, spec, sigmas)
        if path is None:
            return measured
        rows = [
            (kind, sigma, w.tolist())
            for kind, by_sigma in measured.items()
            for sigma, w in by_sigma.items()
        ]
        pd.DataFrame(rows, columns=["kind", "sigma", "w"]).to_parquet(path)
    table = pd.read_parquet(path)
    return {
        kind: {row.sigma: np.asarray(row.w) for row in rows.itertuples()}
        for kind, rows in table.groupby("kind", sort=False)
    }


def comparisons(measured, size, num_pairs, seed) -> Iterator[tuple[str, dict[float, float]]]:
    """(kind of suspect, p-values) of random pairs."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, size]))
    num_clean = len(next(iter(measured["clean"].values())))
    for kind, suspect_pool in measured.items():
        for pair in range(num_pairs):
            order = rng.permutation(num_clean)
            chosen = (
                rng.permutation(len(next(iter(suspect_pool.values()))))[:size]
                if kind != "clean"
                else order[-size:]
            )
            clean = {sigma: w[order[: 2 * size]] for sigma, w in measured["clean"].items()}
            found = wobbliness.compare_w(
                clean, {sigma: w[chosen] for sigma, w in suspect_pool.items()}, seed=pair
            )
            here, paper = found[found.sigma], found[found.levene_sigma].levene
            yield (
                kind,
                {
                    "smoother": here.smoother.pvalue,
                    "wobblier": here.wobblier.pvalue,
                    "levene": paper.pvalue,
                    "levene, all points": paper.pvalue_all_points,
                },
            )


def rows(job) -> list[dict[str, object]]:
    threat, measured, size, num_pairs, seed = job
    return [
        {"network": threat, "suspect": kind, "size": size} | pvalues
        for kind, pvalues in comparisons(measured, size, num_pairs, seed)
    ]


def shown(pvalues, level) -> str:
    found = rate(int((pvalues <= level).sum()), len(pvalues))
    return f"{found.estimate:.3f} [{found.lower:.3f}, {found.upper:.3f}]"


if __name__ == "__main__":
    folder, keep = Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None
    recipe = read_recipe(folder)
    specs = [
        *recipe.effect_networks,
        *(
            spec
            for spec in recipe.detection_networks
            if spec.attack in (None, wobbliness.trigger(TRIGGER_NAMES[0]))
        ),
    ]
    jobs = []
    for spec in specs:
        threat = "clean" if spec.threat is None else spec.threat.name
        num_pairs = -(
            -PAIRS // sum(getattr(other.threat, "name", "clean") == threat for other in specs)
        )
        measured = kept_pools(folder, spec, recipe.sigmas, keep)
        jobs += [(threat, measured, size, num_pairs, spec.seed) for size in SIZES]
    with ProcessPoolExecutor() as executor:
        table = pd.DataFrame([row for found in executor.map(rows, jobs) for row in found])
    print(
        "| network, suspect | points | "
        + " | ".join(f"{test}, p <= {lv}" for lv in LEVELS for test in table.columns[3:])
        + " |"
    )
    print("|---|---|" + "---|" * (len(LEVELS) * len(table.columns[3:])))
    for (network, suspect, size), group in table.groupby(
        ["network", "suspect", "size"], sort=False
    ):
        cells = [shown(group[test], level) for level in LEVELS for test in table.columns[3:]]
        print(f"| {network}, {suspect} | {size} | " + " | ".join(cells) + " |")
