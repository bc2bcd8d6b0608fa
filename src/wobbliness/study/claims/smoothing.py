"""Findings on C1 to C4: W over draws and sigma, and low W around active triggers."""

from typing import Any

import numpy as np
import pandas as pd

from wobbliness.study.claims.verdicts import (
    MAX_SMOOTHER_PVALUE,
    MAX_STABLE_CHANGE,
    MAX_STD_AT_LOW_SIGMA,
    MIN_CLEAN_TO_ACTIVE_RATIO,
    MIN_NOT_SMOOTHER_PVALUE,
    Claim,
    Finding,
    batches_of,
    chosen_tests,
    either,
    settings_of,
    verdict,
)
from wobbliness.study.tables.tables import Tables, parameter_sigma


def find_c1(claim: Claim, tables: Tables) -> Finding:
    """Computes the finding on C1: W and the number of draws, which has to hold on every network."""
    rows, sigma = batches_of(tables, claim.id), parameter_sigma(tables)
    found = [
        _draws_on_network(batches, sigma) for _, batches in rows.groupby("network", sort=False)
    ]
    return Finding(
        claim=claim,
        ours="; next network: ".join(text for text, _ in found),
        verdict=verdict(all(holds for _, holds in found)),
        settings=settings_of(
            tables,
            f"{len(found)} networks, {rows.num_points.iloc[0]} clean points, sigma {sigma:g}",
        ),
    )


def _draws_on_network(batches: pd.DataFrame, sigma: float) -> tuple[str, bool]:
    # the verdict is at one sigma; the sentence also lists where else the spread falls
    spreads = batches.pivot(index="sigma", columns="draws", values="std")
    rows = batches[batches.sigma == sigma].sort_values("draws").set_index("draws")
    first, last = rows.index.min(), rows.index.max()
    mean, std = rows["mean"], rows["std"]
    rises, falls = bool(mean[250] > mean[first]), bool(std[250] < std[first])
    falls_at = [f"{at:g}" for at in spreads.index[spreads[250] < spreads[first]]]
    # relative change from 250 draws to the largest number, of mean and spread
    stable = max(abs(mean[last] / mean[250] - 1), abs(std[last] / std[250] - 1))
    text = (
        f"mean {mean[first]:.3f} at n = {first}, {mean[250]:.3f} at 250, {mean[last]:.3f} at "
        f"{last} (Miller-Madow {rows.miller_madow_mean[first]:.3f}, "
        f"{rows.miller_madow_mean[250]:.3f}, {rows.miller_madow_mean[last]:.3f}); standard "
        f"deviation {std[first]:.3f}, {std[250]:.3f}, {std[last]:.3f}; mean "
        f"{either(rises, 'rises', 'does not rise')}, spread "
        f"{either(falls, 'falls', 'does not fall')}, largest change after 250: {stable:.1%}; over "
        f"the grid the spread falls at sigma {', '.join(falls_at) or 'none'}"
    )
    return text, bool(rises and falls and stable <= MAX_STABLE_CHANGE)


def find_c2(claim: Claim, tables: Tables) -> Finding:
    """Computes the finding on C2: W and sigma, which has to hold on every network."""
    rows = batches_of(tables, claim.id)
    found = [
        _sigmas_on_network(batches.sort_values("sigma"))
        for _, batches in rows.groupby("network", sort=False)
    ]
    return Finding(
        claim=claim,
        ours="; next network: ".join(text for text, _ in found),
        verdict=verdict(all(holds for _, holds in found)),
        settings=settings_of(
            tables,
            f"{len(found)} networks, {rows.num_points.iloc[0]} clean points, n = "
            f"{rows.draws.iloc[0]}",
        ),
    )


def _sigmas_on_network(rows: pd.DataFrame) -> tuple[str, bool]:
    spread = dict(zip(rows.sigma, rows["std"], strict=True))
    # rows ascend by sigma: a spread that falls with sigma rises along them
    falls = bool(all(np.diff(list(spread.values())) > 0))
    peak, smallest = max(spread, key=lambda sigma: spread[sigma]), min(spread)
    listed = ", ".join(f"{value:.3f} at {sigma:g}" for sigma, value in spread.items())
    text = (
        f"standard deviation {listed}; largest at sigma {peak:g}, {either(falls, 'and', 'not')} "
        "falling at every step"
    )
    return text, bool(falls and spread[smallest] < MAX_STD_AT_LOW_SIGMA)


def find_c3(claim: Claim, tables: Tables) -> Finding:
    """Computes the finding on C3: active triggers."""
    rows = chosen_tests(tables, claim.id, "active", "directional")
    levene = chosen_tests(tables, claim.id, "active", "levene").set_index("network")
    networks = tables.networks.set_index("network")
    listed = "; ".join(
        f"{row.clean_mean:.3f} clean, {row.suspect_mean:.3f} active at sigma {row.sigma:g} "
        f"({_factor(row)}, directional p {row.directional_pvalue:.0e}), "
        f"{levene.clean_mean[row.network]:.3f} and {levene.suspect_mean[row.network]:.3f} at "
        f"{levene.sigma[row.network]:g} (Levene p {levene.levene_pvalue[row.network]:.0e}); "
        f"accuracy {networks.clean_accuracy[row.network]:.1%} clean, "
        f"{networks.backdoor_accuracy[row.network]:.1%} backdoor"
        for row in rows.itertuples()
    )
    # a product, not a quotient: active W is often exactly 0
    is_far_lower = (rows.suspect_mean * MIN_CLEAN_TO_ACTIVE_RATIO <= rows.clean_mean).all()
    return Finding(
        claim=claim,
        ours=f"mean W {listed}",
        verdict=verdict(
            bool(is_far_lower and (rows.directional_pvalue < MAX_SMOOTHER_PVALUE).all())
        ),
        settings=_effect_settings(tables, rows),
    )


def find_c4(claim: Claim, tables: Tables) -> Finding:
    """Computes the finding on C4: inactive triggers."""
    rows = chosen_tests(tables, claim.id, "inactive", "directional")
    levene = chosen_tests(tables, claim.id, "inactive", "levene").set_index("network")
    batches = batches_of(tables, claim.id)
    accuracies = (
        batches[(batches.kind == "inactive")].drop_duplicates("network").set_index("network")
    )
    listed = "; ".join(
        f"{row.clean_mean:.3f} clean, {row.suspect_mean:.3f} inactive at sigma {row.sigma:g} "
        f"({_direction(row.directional_pvalue)}, directional p {row.directional_pvalue:.2g}), "
        f"{levene.clean_mean[row.network]:.3f} and {levene.suspect_mean[row.network]:.3f} at "
        f"{levene.sigma[row.network]:g} (Levene p {levene.levene_pvalue[row.network]:.2g}); "
        f"{accuracies.accuracy_on_attacker_labels[row.network]:.0%} on poison labels, "
        f"{accuracies.accuracy_on_clean_labels[row.network]:.0%} on clean labels"
        for row in rows.itertuples()
    )
    return Finding(
        claim=claim,
        ours=f"mean W {listed}",
        verdict=verdict(bool((rows.directional_pvalue > MIN_NOT_SMOOTHER_PVALUE).all())),
        settings=_effect_settings(tables, rows),
    )


def _effect_settings(tables: Tables, rows: pd.DataFrame) -> str:
    return settings_of(
        tables,
        f"{len(rows)} networks, {rows.num_points.iloc[0]} points a batch (paper: 25), n = "
        f"{tables.recipe.draws}",
    )


def _factor(row: Any) -> str:
    return (
        f"factor {row.clean_mean / row.suspect_mean:.1f}" if row.suspect_mean > 0 else "every W = 0"
    )


def _direction(pvalue: float) -> str:
    return (
        "lower"
        if pvalue <= MIN_NOT_SMOOTHER_PVALUE
        else "higher"
        if pvalue >= 1 - MIN_NOT_SMOOTHER_PVALUE
        else "no difference"
    )
