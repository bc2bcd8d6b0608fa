"""The paper's claims, each with what the paper says, what a study found, and a verdict by a rule stated here."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from wobbliness.study.comparisons import CHOSEN_COLUMNS
from wobbliness.study.tables import Tables, claims_done, parameter_sigma

REPRODUCED, NOT_REPRODUCED, NOT_MEASURED = "reproduced", "not reproduced", "not measured"

SAME = 0.05  # relative change below which a mean or spread counts as stable (C1)
NO_SPREAD = 0.02  # nats: a standard deviation of W below it counts as none (C2)
FAR_LOWER = 5.0  # factor between mean W of clean and active-trigger points (C3)
SIGNIFICANT = 0.001  # p-value of the directional test (C3)
NOT_LOWER = 0.05  # p-value of the directional test above which a batch does not count as smoother (C4)
TELLS_APART = 0.95  # area under the ROC curve (C7)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim of the paper.

    Attributes:
        id: C1 to C9.
        claim: what is claimed, in a sentence.
        paper: where, and with which figure.
        rule: when we call it reproduced.
    """

    id: str
    claim: str
    paper: str
    rule: str


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a study found of a claim."""

    claim: Claim
    ours: str
    verdict: str
    settings: str


CLAIMS = (
    Claim(
        id="C1",
        claim="As the number of draws n grows, the mean of W rises and its spread falls; both are stable from n = 250 on",
        paper="plot (Fig. 2 left)",
        rule=f"mean higher and standard deviation lower at n = 250 than at the smallest n; both change by at most {SAME:.0%} "
        "from 250 to the largest n, at the sigma where clean W spreads most",
    ),
    Claim(
        id="C2",
        claim="As sigma falls the spread of W falls; none is left at 0.01",
        paper="plot (Fig. 2 right)",
        rule=f"standard deviation falls at every step from the largest sigma down, and is below {NO_SPREAD} nats at 0.01",
    ),
    Claim(
        id="C3",
        claim="Around an active trigger W is far lower than around clean points",
        paper="plot (Fig. 4 left), trigger accuracy 99 %",
        rule=f"on every network mean W at least {FAR_LOWER:g} times lower and directional p below {SIGNIFICANT:g}, "
        "at the sigma chosen for that test on clean points",
    ),
    Claim(
        id="C4",
        claim="Around an inactive trigger W looks like clean: it is not lower",
        paper="plot (Fig. 4 right), 9 % on poison labels, 89 % on clean labels",
        rule=f"on every network W is not lower: directional p above {NOT_LOWER:g}, at the sigma chosen for it on clean points",
    ),
    Claim(
        id="C7",
        claim="Levene's test on W tells active triggers from inactive ones and from clean points",
        paper="AUC 0.99 (CIFAR-10 T1), 1.0 (Fashion-MNIST T3) (Fig. 6)",
        rule=f"AUC of Levene's p-value (outliers removed) at least {TELLS_APART:g}, at the sigma chosen for it on clean points",
    ),
)


def claims_table(tables: Tables) -> pd.DataFrame:
    """One row per claim: id, claim, paper, ours, verdict, settings."""
    rows = [
        {
            "id": finding.claim.id,
            "claim": finding.claim.claim,
            "paper": finding.claim.paper,
            "ours": finding.ours,
            "verdict": finding.verdict,
            "settings": finding.settings,
        }
        for finding in findings(tables)
    ]
    return pd.DataFrame(rows)


def findings(tables: Tables) -> list[Finding]:
    """What the study found of each claim; `not measured` where cells are missing or the recipe does not measure it."""
    done = set(claims_done(tables))
    return [_FINDERS[claim.id](claim, tables) if claim.id in done else _not_measured(claim, tables) for claim in CLAIMS]


def _not_measured(claim: Claim, tables: Tables) -> Finding:
    planned = tables.status[tables.status.claim == claim.id]
    settings = f"recipe {tables.recipe.name}, seed {tables.recipe.seed}"
    if len(planned):
        settings += f": {planned.cells_done.iloc[0]} of {planned.cells.iloc[0]} cells recorded"
    return Finding(claim=claim, ours="", verdict=NOT_MEASURED, settings=settings)


def _find_c1(claim: Claim, tables: Tables) -> Finding:
    rows = _batches_of(tables, claim.id)
    spreads = rows.pivot(index="sigma", columns="draws", values="std")
    rows = rows[rows.sigma == parameter_sigma(tables)].sort_values("draws").set_index("draws")
    first, last = rows.index.min(), rows.index.max()
    mean, std = rows["mean"], rows["std"]
    rises, falls = mean[250] > mean[first], std[250] < std[first]
    falls_at = [f"{sigma:g}" for sigma in spreads.index[spreads[250] < spreads[first]]]
    stable = max(abs(mean[last] / mean[250] - 1), abs(std[last] / std[250] - 1))
    ours = (
        f"mean {mean[first]:.3f} at n = {first}, {mean[250]:.3f} at 250, {mean[last]:.3f} at {last} (Miller-Madow "
        f"{rows.miller_madow_mean[first]:.3f}, {rows.miller_madow_mean[250]:.3f}, {rows.miller_madow_mean[last]:.3f}); "
        f"standard deviation {std[first]:.3f}, {std[250]:.3f}, {std[last]:.3f}; "
        f"mean {_yes(rises, 'rises', 'does not rise')}, spread {_yes(falls, 'falls', 'does not fall')}, "
        f"largest change after 250: {stable:.1%}; over the grid the spread falls at sigma {', '.join(falls_at) or 'none'}"
    )
    return Finding(
        claim=claim,
        ours=ours,
        verdict=_verdict(rises and falls and stable <= SAME),
        settings=_settings(tables, f"{rows.num_points.iloc[0]} clean points, sigma {rows.sigma.iloc[0]}"),
    )


def _find_c2(claim: Claim, tables: Tables) -> Finding:
    rows = _batches_of(tables, claim.id).sort_values("sigma")
    spread = dict(zip(rows.sigma, rows["std"], strict=True))
    falls = all(np.diff(list(spread.values())) > 0)
    peak, smallest = max(spread, key=lambda sigma: spread[sigma]), min(spread)
    listed = ", ".join(f"{value:.3f} at {sigma:g}" for sigma, value in spread.items())
    return Finding(
        claim=claim,
        ours=f"standard deviation {listed}; largest at sigma {peak:g}, {_yes(falls, 'and', 'not')} falling at every step",
        verdict=_verdict(falls and spread[smallest] < NO_SPREAD),
        settings=_settings(tables, f"{rows.num_points.iloc[0]} clean points, n = {rows.draws.iloc[0]}"),
    )


def _find_c3(claim: Claim, tables: Tables) -> Finding:
    rows = _chosen_tests(tables, claim.id, "active", "directional")
    levene = _chosen_tests(tables, claim.id, "active", "levene").set_index("network")
    networks = tables.networks.set_index("network")
    listed = "; ".join(
        f"{row.clean_mean:.3f} clean, {row.suspect_mean:.3f} active at sigma {row.sigma:g} ({_factor(row)}, directional p "
        f"{row.directional_pvalue:.0e}), {levene.clean_mean[row.network]:.3f} and {levene.suspect_mean[row.network]:.3f} at "
        f"{levene.sigma[row.network]:g} (Levene p {levene.levene_pvalue[row.network]:.0e}); "
        f"accuracy {networks.clean_accuracy[row.network]:.1%} clean, {networks.backdoor_accuracy[row.network]:.1%} backdoor"
        for row in rows.itertuples()
    )
    is_far_lower = (rows.suspect_mean * FAR_LOWER <= rows.clean_mean).all()
    return Finding(
        claim=claim,
        ours=f"mean W {listed}",
        verdict=_verdict(bool(is_far_lower and (rows.directional_pvalue < SIGNIFICANT).all())),
        settings=_effect_settings(tables, rows),
    )


def _find_c4(claim: Claim, tables: Tables) -> Finding:
    rows = _chosen_tests(tables, claim.id, "inactive", "directional")
    levene = _chosen_tests(tables, claim.id, "inactive", "levene").set_index("network")
    batches = _batches_of(tables, claim.id)
    accuracies = batches[(batches.kind == "inactive")].drop_duplicates("network").set_index("network")
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
        verdict=_verdict(bool((rows.directional_pvalue > NOT_LOWER).all())),
        settings=_effect_settings(tables, rows),
    )


def _find_c7(claim: Claim, tables: Tables) -> Finding:
    chosen = tables.roc[tables.roc.sigma == "chosen"].set_index("test")
    listed = ", ".join(f"{test} {row.auc:.2f} [{row.auc_lower:.2f}, {row.auc_upper:.2f}]" for test, row in chosen.iterrows())
    row = chosen.iloc[0]
    return Finding(
        claim=claim,
        ours=f"AUC {listed}",
        verdict=_verdict(bool(chosen.auc["levene"] >= TELLS_APART)),
        settings=_settings(
            tables, f"{row.num_positives} active and {row.num_negatives} other batches of {tables.recipe.detection_points} points"
        ),
    )


_FINDERS: dict[str, Callable[[Claim, Tables], Finding]] = {
    "C1": _find_c1,
    "C2": _find_c2,
    "C3": _find_c3,
    "C4": _find_c4,
    "C7": _find_c7,
}


def _batches_of(tables: Tables, claim: str) -> pd.DataFrame:
    return tables.batches[tables.batches.claims.str.contains(claim)]


def _chosen_tests(tables: Tables, claim: str, kind: str, test: str) -> pd.DataFrame:
    """The rows of whole batches at the sigma chosen for a test, one row per network."""
    rows = tables.tests[tables.tests.claims.str.contains(claim) & (tables.tests.kind == kind)]
    return rows[rows[CHOSEN_COLUMNS[test]] & (rows.num_points == rows.batch_size)]


def _effect_settings(tables: Tables, rows: pd.DataFrame) -> str:
    return _settings(
        tables, f"{len(rows)} networks, {rows.num_points.iloc[0]} points a batch (paper: 25), n = {tables.recipe.draws}"
    )


def _settings(tables: Tables, text: str) -> str:
    return f"recipe {tables.recipe.name}, seed {tables.recipe.seed}: {text}"


def _factor(row: Any) -> str:
    return f"factor {row.clean_mean / row.suspect_mean:.1f}" if row.suspect_mean > 0 else "every W = 0"


def _direction(pvalue: float) -> str:
    return "lower" if pvalue <= NOT_LOWER else "higher" if pvalue >= 1 - NOT_LOWER else "no difference"


def _verdict(holds: bool) -> str:
    return REPRODUCED if holds else NOT_REPRODUCED


def _yes(holds: bool, yes: str, no: str) -> str:
    return yes if holds else no
