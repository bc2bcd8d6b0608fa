"""ROC curves over the batches and over single inputs of a study.

From its tables of tests and points.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from wobbliness.statistics.bootstrap import auc_bootstrap
from wobbliness.statistics.two_sample import RocCurve, roc_curve
from wobbliness.study.specs.cleanse import CANDIDATES
from wobbliness.study.specs.universal import TARGETED, UNTARGETED
from wobbliness.study.tables.comparisons import CHOSEN_COLUMNS, PVALUE_COLUMNS, full_batches
from wobbliness.study.tables.membership import of_claims

# backdoor accuracy from which an active trigger counts as functioning; those of the paper have 99 %
MIN_BACKDOOR_ACCURACY = 0.95


@dataclass(frozen=True, kw_only=True)
class Question:
    """Batches to be told apart: rows of the table of tests by their claim and kind.

    `other_classes` leaves out Neural Cleanse candidates of the attacker's own class and those on
    clean networks, `functioning` the triggers of backdoors that were not well learnt
    (MIN_BACKDOOR_ACCURACY): section 3.2.4 speaks of functioning triggers.
    """

    name: str
    claim: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...]
    other_classes: bool = False
    functioning: bool = False


ACTIVE = Question(
    name="functioning active trigger or not",
    claim="C7",
    positives=("active",),
    negatives=("clean", "inactive"),
    functioning=True,
)
TRAINED = Question(
    name="active trigger, functioning or not, or none",
    claim="C7",
    positives=("active",),
    negatives=("clean", "inactive"),
)
UNIVERSAL = Question(
    name="universal perturbation or clean",
    claim="C8",
    positives=(UNTARGETED,),
    negatives=("clean",),
)
UNIVERSAL_TARGETED = Question(
    name="targeted universal perturbation or clean",
    claim="C8",
    positives=(TARGETED,),
    negatives=("clean",),
)
CRAFTED = Question(
    name="Neural Cleanse candidate or clean",
    claim="C9",
    positives=tuple(CANDIDATES.values()),
    negatives=("clean",),
)
IMPLANTED_FIRST, IMPLANTED_SMALLEST = (
    Question(
        name=f"implanted trigger or {form} candidate of another class",
        claim="C9",
        positives=("active",),
        negatives=(kind,),
        other_classes=True,
        functioning=True,
    )
    for form, kind in CANDIDATES.items()
)
QUESTIONS = (
    ACTIVE,
    TRAINED,
    UNIVERSAL,
    UNIVERSAL_TARGETED,
    CRAFTED,
    IMPLANTED_FIRST,
    IMPLANTED_SMALLEST,
)


def question_curve(
    tests: pd.DataFrame, question: Question, test: str, sigma: float | None
) -> RocCurve | None:
    """Computes the ROC curve of one test over the batches of a question.

    None where there are no positives or no negatives.
    """
    found = _scores(_rows(tests, question), question, test, sigma)
    return None if found is None else roc_curve(*found)


def _scores(
    rows: pd.DataFrame, question: Question, test: str, sigma: float | None
) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns which batches of a question are positives, and the score of each.

    The lower its p-value, the higher the score.

    Args:
        rows: of the table of tests, those of the question.
        question: which batches are positives.
        test: a key of PVALUE_COLUMNS.
        sigma: one of the grid, or None for the one chosen for this test on each network.
    """
    rows = rows[rows[CHOSEN_COLUMNS[test]]] if sigma is None else rows[rows.sigma == sigma]
    is_positive = rows.kind.isin(question.positives)
    if is_positive.nunique() < 2:
        return None
    smallest = np.finfo(float).tiny  # p = 0 by underflow
    return is_positive.to_numpy(), -np.log(
        rows[PVALUE_COLUMNS[test]].clip(lower=smallest)
    ).to_numpy()


def roc_areas(tests: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Computes the area under the ROC curve of each question and test.

    At every sigma of the grid, and at the chosen ones.
    """
    rows = []
    # None stands for the sigma that each network chose for the test
    for question in QUESTIONS if len(tests) else ():
        of_question = _rows(tests, question)
        grid = sorted(of_question.sigma.unique())
        for sigma in [*grid, None] if grid else []:
            for test in PVALUE_COLUMNS:
                found = _scores(of_question, question, test, sigma)
                if found is not None:
                    keys = {
                        "question": question.name,
                        "sigma": "chosen" if sigma is None else str(sigma),
                        "test": test,
                    }
                    rows.append(keys | _area(*found, seed))
    return pd.DataFrame(rows)


def input_areas(points: pd.DataFrame, sigma: pd.DataFrame) -> pd.DataFrame:
    """Computes ROC areas over single inputs for each poisoned network of C7.

    Inputs with the active trigger against clean ones: by W (low is suspicious) at every sigma, and
    by the one-pass top softmax score (high is suspicious).
    """
    rows: list[dict[str, object]] = []
    here = of_claims(points, "C7")
    here = here[here.kind.isin(["clean", "active"])] if len(here) else here
    for (network, at), group in here.groupby(["network", "sigma"], sort=False) if len(here) else ():
        chosen = sigma[(sigma.network == network) & (sigma.test == "directional")].sigma
        keys = {"network": network, "sigma": at, "is_chosen": bool((chosen == at).any())}
        rows += [keys | row for row in _input_rows(group[group.batch != "calibration"])]
    return pd.DataFrame(rows)


def _input_rows(points: pd.DataFrame) -> Iterator[dict[str, object]]:
    is_active = points.kind == "active"
    if is_active.nunique() < 2:
        return
    # higher means more suspicious: low W, high top score
    for score, values in {"W": -points.wobbliness, "top softmax score": points.top_score}.items():
        curve = roc_curve(is_active, values)
        names = ("auc", "auc_lower", "auc_upper", "num_positives", "num_negatives")
        yield {"trigger": points.trigger[is_active].iloc[0], "score": score} | {
            name: getattr(curve, name) for name in names
        }


def _rows(tests: pd.DataFrame, question: Question) -> pd.DataFrame:
    rows = of_claims(full_batches(tests), question.claim)
    rows = rows[rows.kind.isin([*question.positives, *question.negatives])]
    if question.functioning:
        rows = rows[(rows.kind != "active") | (rows.attack_success >= MIN_BACKDOOR_ACCURACY)]
    return rows[(rows.kind == "active") | rows.is_other_class] if question.other_classes else rows


def _area(is_positive: np.ndarray, scores: np.ndarray, seed: int) -> dict[str, object]:
    curve = roc_curve(is_positive, scores)
    names = ("auc", "auc_lower", "auc_upper", "num_positives", "num_negatives")
    bootstrap = auc_bootstrap(is_positive, scores, seed=seed)
    return {name: getattr(curve, name) for name in names} | {
        "bootstrap_lower": bootstrap[0],
        "bootstrap_upper": bootstrap[1],
    }
