"""Claims and findings, and the words and thresholds of the verdicts."""

from dataclasses import dataclass

import pandas as pd

from wobbliness.study.tables.comparisons import CHOSEN_COLUMNS, full_batches
from wobbliness.study.tables.membership import of_claims
from wobbliness.study.tables.tables import Tables

REPRODUCED, NOT_REPRODUCED, NOT_MEASURED, REPORTED = (
    "reproduced",
    "not reproduced",
    "not measured",
    "reported",
)
"""`reported` stands where the paper claims nothing and we measured all the same."""

MAX_STABLE_CHANGE = 0.05  # relative change below which a mean or spread counts as stable (C1)
MAX_STD_AT_LOW_SIGMA = 0.02  # nats: a standard deviation of W below it counts as none (C2)
MIN_CLEAN_TO_ACTIVE_RATIO = 5.0  # factor between mean W of clean and active-trigger points (C3)
MAX_SMOOTHER_PVALUE = 0.001  # p-value of the directional test (C3, C9)
# p-value of the directional test above which a batch does not count as smoother (C4)
MIN_NOT_SMOOTHER_PVALUE = 0.05
# both coefficients at most, and both p-values below (C5, C6)
MAX_CORRELATION, MAX_CORRELATION_PVALUE = -0.4, 0.01
MIN_DETECTION_AUC = 0.95  # area under the ROC curve (C7)
MAX_UNIVERSAL_AUC = 0.8  # area below which universal perturbations are not told apart (C8)
# share of Neural Cleanse candidates, and of their success on training data (C9)
MIN_CANDIDATE_SHARE = 0.95


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim of the paper.

    Attributes:
        id: C1 to C9; X1 to X3 are further questions.
        topic: the claim in a few words.
        claim: what is claimed, in a sentence.
        paper: where, and with which figure.
        rule: when we call it reproduced.
    """

    id: str
    topic: str
    claim: str
    paper: str
    rule: str


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Result of a study on one claim."""

    claim: Claim
    ours: str
    verdict: str
    settings: str


def batches_of(tables: Tables, claim: str) -> pd.DataFrame:
    """Returns the rows of the table of batches that belong to a claim."""
    return of_claims(tables.batches, claim)


def chosen_tests(tables: Tables, claim: str, kind: str, test: str) -> pd.DataFrame:
    """Returns the rows of whole batches at the sigma chosen for a test."""
    rows = of_claims(tables.tests, claim)
    return full_batches(rows[(rows.kind == kind) & rows[CHOSEN_COLUMNS[test]]])


def settings_of(tables: Tables, text: str) -> str:
    """Returns the settings of a finding, with the recipe and its seed."""
    return f"recipe {tables.recipe.name}, seed {tables.recipe.seed}: {text}"


def verdict(holds: bool) -> str:
    """Returns the verdict: reproduced or not."""
    return REPRODUCED if holds else NOT_REPRODUCED


def either(holds: bool, yes: str, no: str) -> str:
    """Returns the first word if it holds, else the second."""
    return yes if holds else no
