"""Claims of the paper, each with the paper's words, our finding, and a verdict by a rule."""

from collections.abc import Callable

import pandas as pd

from wobbliness.study.claims import detection as detection_findings
from wobbliness.study.claims import smoothing as smoothing_findings
from wobbliness.study.claims.verdicts import (
    MAX_CORRELATION,
    MAX_CORRELATION_PVALUE,
    MAX_SMOOTHER_PVALUE,
    MAX_STABLE_CHANGE,
    MAX_STD_AT_LOW_SIGMA,
    MAX_UNIVERSAL_AUC,
    MIN_CANDIDATE_SHARE,
    MIN_CLEAN_TO_ACTIVE_RATIO,
    MIN_DETECTION_AUC,
    MIN_NOT_SMOOTHER_PVALUE,
    NOT_MEASURED,
    Claim,
    Finding,
)
from wobbliness.study.tables.curves import MIN_BACKDOOR_ACCURACY
from wobbliness.study.tables.tables import Tables, claims_done, lacks_draws

CLAIMS = (
    Claim(
        id="C1",
        topic="W settles by 250 draws",
        claim="As the number of draws n grows, the mean of W rises and its spread falls; both are "
        "stable from n = 250 on",
        paper="plot (Fig. 2 left)",
        rule="mean higher and standard deviation lower at n = 250 than at the smallest n; both "
        f"change by at most {MAX_STABLE_CHANGE:.0%} from 250 to the largest n, at the sigma where "
        "clean W spreads most",
    ),
    Claim(
        id="C2",
        topic="Less noise, less spread of W",
        claim="As sigma falls the spread of W falls; none is left at 0.01",
        paper="plot (Fig. 2 right)",
        rule="standard deviation falls at every step from the largest sigma down, and is below "
        f"{MAX_STD_AT_LOW_SIGMA} nats at 0.01",
    ),
    Claim(
        id="C3",
        topic="W is far lower around an active trigger",
        claim="Around an active trigger W is far lower than around clean points",
        paper="plot (Fig. 4 left), trigger accuracy 99 %",
        rule=f"on every network mean W at least {MIN_CLEAN_TO_ACTIVE_RATIO:g} times lower and "
        f"directional p below {MAX_SMOOTHER_PVALUE:g}, at the sigma chosen for that test on clean "
        "points",
    ),
    Claim(
        id="C4",
        topic="W is not lower around an inactive trigger",
        claim="Around an inactive trigger W looks like clean: it is not lower",
        paper="plot (Fig. 4 right), 9 % on poison labels, 89 % on clean labels",
        rule=f"on every network W is not lower: directional p above {MIN_NOT_SMOOTHER_PVALUE:g}, "
        "at the sigma chosen for it on clean points",
    ),
    Claim(
        id="C5",
        topic="Better backdoors are smoother, over networks",
        claim="The better a backdoor works, the lower is W around its trigger, over networks",
        paper="Kendall tau -0.50 (p 0.001), Pearson -0.77 (p 7.5e-5): CIFAR-10 T1, 24 networks "
        "(Fig. 5 left)",
        rule=f"both coefficients at most {MAX_CORRELATION:g} with p below "
        f"{MAX_CORRELATION_PVALUE:g}, backdoors below random guess left out, at the sigma chosen "
        "on the clean points of all networks together",
    ),
    Claim(
        id="C6",
        topic="Better backdoors are smoother, over classes",
        claim="The same over target classes",
        paper="tau -0.49 (p 1.5e-10), Pearson -0.58 (p 1.8e-8): Fashion-MNIST T2, 79 pairs of "
        "network and class (Fig. 5 right)",
        rule="as C5",
    ),
    Claim(
        id="C7",
        topic="Levene's test finds working triggers",
        claim="Levene's test on W tells functioning active triggers from inactive ones and from "
        "clean points",
        paper="AUC 0.99 (CIFAR-10 T1), 1.0 (Fashion-MNIST T3) (Fig. 6)",
        rule=f"AUC of Levene's p-value (outliers removed) at least {MIN_DETECTION_AUC:g}, at the "
        "sigma chosen for it on clean points; an active trigger functions if its backdoor accuracy "
        f"is at least {MIN_BACKDOOR_ACCURACY:.0%} (paper: 99 %)",
    ),
    Claim(
        id="C8",
        topic="Universal perturbations are not told apart",
        claim="Universal adversarial perturbations are not told from clean points this way",
        paper="AUC 0.05 (CIFAR-10 T1: more variance than clean), 0.56 (Fashion-MNIST T3) (Fig. 7)",
        rule=f"AUC of the directional test below {MAX_UNIVERSAL_AUC:g}, both norms together, "
        "untargeted, at the sigma chosen for it",
    ),
    Claim(
        id="C9",
        topic="Crafted candidates are smooth too",
        claim="Neural Cleanse candidates, one per class, are smooth on clean and backdoored "
        "networks alike: a backdoor is not necessary for backdoor smoothing",
        paper="all found smooth with the same very low p; on training data each sends 100 % to its "
        "class (section 3.2.4)",
        rule=f"at least {MIN_CANDIDATE_SHARE:.0%} of the candidates at their success threshold "
        f"have directional p below {MAX_SMOOTHER_PVALUE:g}, on clean networks as on backdoored "
        f"ones, and send at least {MIN_CANDIDATE_SHARE:.0%} of training points to their class",
    ),
    Claim(
        id="X1",
        topic="Backdoored networks and pure noise",
        claim="Are backdoored networks more sensitive to images of noise alone (Erichson et al. "
        "2021)?",
        paper="not in the paper; Erichson et al. find them more sensitive",
        rule="reported",
    ),
    Claim(
        id="X2",
        topic="Implanted trigger or crafted candidate?",
        claim="Does W tell implanted triggers from Neural Cleanse candidates of other classes?",
        paper="the paper calls it unanswerable (section 4)",
        rule="reported",
    ),
    Claim(
        id="X3",
        topic="Single inputs, and the top score beside W",
        claim="Does W tell single triggered inputs from clean ones, and better than the top "
        "softmax score?",
        paper="not in the paper",
        rule="reported",
    ),
)

FINDERS: dict[str, Callable[[Claim, Tables], Finding]] = {
    "C1": smoothing_findings.find_c1,
    "C2": smoothing_findings.find_c2,
    "C3": smoothing_findings.find_c3,
    "C4": smoothing_findings.find_c4,
    "C5": detection_findings.find_correlation,
    "C6": detection_findings.find_correlation,
    "C7": detection_findings.find_c7,
    "C8": detection_findings.find_c8,
    "C9": detection_findings.find_c9,
    "X1": detection_findings.find_noise_response,
    "X2": detection_findings.find_implanted,
    "X3": detection_findings.find_single_inputs,
}

MEASURED_WITH = {"X2": "C9", "X3": "C7"}
"""Questions without cells of their own, and the claim whose cells answer them."""


def claims_table(tables: Tables) -> pd.DataFrame:
    """Returns one row per claim: id, claim, paper, ours, verdict, settings."""
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
    """Returns the study's finding on each claim.

    It is `not measured` where cells are missing or the recipe does not measure the claim.
    """
    done = set(claims_done(tables))
    return [
        FINDERS[claim.id](claim, tables)
        if MEASURED_WITH.get(claim.id, claim.id) in done
        else _not_measured(claim, tables)
        for claim in CLAIMS
    ]


def _not_measured(claim: Claim, tables: Tables) -> Finding:
    # empty where the recipe has no cells for the claim
    planned = tables.status[tables.status.claim == MEASURED_WITH.get(claim.id, claim.id)]
    settings = f"recipe {tables.recipe.name}, seed {tables.recipe.seed}"
    if len(planned):
        settings += f": {planned.cells_done.iloc[0]} of {planned.cells.iloc[0]} cells recorded"
        if claim.id == "C1" and lacks_draws(tables):
            settings += f"; {lacks_draws(tables)}"
    return Finding(claim=claim, ours="", verdict=NOT_MEASURED, settings=settings)
