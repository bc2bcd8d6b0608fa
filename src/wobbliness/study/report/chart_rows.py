"""Rows that each figure shows, as a reader may download them.

Where they have a column `panel`, each value is a chart.
"""

from collections.abc import Iterator

import pandas as pd

from wobbliness.study.tables.comparisons import PVALUE_COLUMNS
from wobbliness.study.tables.curves import (
    ACTIVE,
    ACTIVE_PANELS,
    IMPLANTED_PANELS,
    UNIVERSAL_PANELS,
    Question,
    area_text,
    question_curve,
)
from wobbliness.study.tables.membership import of_claims
from wobbliness.study.tables.tables import Tables, parameter_sigma


def example_rows(tables: Tables) -> pd.DataFrame:
    """Returns the rows of Fig. 1: the votes around one clean and one triggered point."""
    return tables.example


def draws_rows(tables: Tables) -> pd.DataFrame:
    """Returns the rows of Fig. 2 left: W of the clean points at each number of draws."""
    points, sigma = of_claims(tables.points, "C1"), parameter_sigma(tables)
    return points[points.sigma == sigma][
        ["network", "sigma", "draws", "point", "wobbliness", "miller_madow"]
    ]


def sigma_rows(tables: Tables) -> pd.DataFrame:
    """Returns the rows of Fig. 2 right: W of the clean points at each sigma."""
    return of_claims(tables.points, "C2")[["network", "sigma", "draws", "point", "wobbliness"]]


def effect_rows(tables: Tables) -> pd.DataFrame:
    """Returns the rows of Fig. 4: W of the batches of the first network."""
    points = of_claims(tables.points, "C3", "C4")
    points = points[
        (points.network == points.network.iloc[0]) & points.batch.isin(("clean", "suspect"))
    ]
    return points[["network", "kind", "trigger", "sigma", "point", "wobbliness"]]


def strength_rows(tables: Tables) -> pd.DataFrame:
    """Returns the rows of Fig. 5: the backdoors of C5 and C6.

    At the sigma chosen on clean points.
    """
    chosen = tables.correlations[tables.correlations.is_chosen]
    rows = tables.strength.merge(chosen[["claim", "sigma", "tau", "r"]], on=["claim", "sigma"])
    titles = [
        f"{row.claim}, sigma {row.sigma:g}: tau {row.tau:.2f}, r {row.r:.2f}"
        for row in rows.itertuples()
    ]
    return rows.drop(columns=["tau", "r"]).assign(panel=titles)


def roc_rows(tables: Tables) -> pd.DataFrame:
    """Returns the rows of Fig. 6."""
    return _curves(tables, ACTIVE_PANELS)


def universal_rows(tables: Tables) -> pd.DataFrame:
    """Returns the rows of Fig. 7, and of the targeted form."""
    return _curves(tables, UNIVERSAL_PANELS)


def implanted_rows(tables: Tables) -> pd.DataFrame:
    """Returns the rows of implanted triggers against Neural Cleanse candidates."""
    return _curves(tables, IMPLANTED_PANELS)


def area_rows(tables: Tables) -> pd.DataFrame:
    """Returns the areas of Fig. 6 over the grid of sigmas."""
    rows = tables.roc[(tables.roc.sigma != "chosen") & (tables.roc.question == ACTIVE.name)]
    return rows[
        ["sigma", "test", "auc", "auc_lower", "auc_upper", "num_positives", "num_negatives"]
    ]


def control_rows(tables: Tables) -> pd.DataFrame:
    """Returns the rows of the negative controls."""
    return tables.controls


def _curves(tables: Tables, panels: dict[str, Question]) -> pd.DataFrame:
    frames = list(_curve_frames(tables, panels))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _curve_frames(tables: Tables, panels: dict[str, Question]) -> Iterator[pd.DataFrame]:
    for panel, question in panels.items():
        for test in PVALUE_COLUMNS:
            curve = question_curve(tables.tests, question, test, None)
            if curve is not None:
                area = area_text(curve)
                rates = {
                    "false_positive_rate": curve.false_positive_rate,
                    "true_positive_rate": curve.true_positive_rate,
                }
                frame = pd.DataFrame(rates)
                yield frame.assign(panel=panel, test=test, area=area, series=f"{test}: {area}")
