"""Rows of a study's tables that several claims read, and the words that they share."""

from collections.abc import Callable, Iterable, Sequence

import pandas as pd

from wobbliness.reports.small_plot import Series, SmallPlot
from wobbliness.study.claims.base import Reading
from wobbliness.study.tables.comparisons import CHOSEN_COLUMNS, full_batches
from wobbliness.study.tables.curves import Question
from wobbliness.study.tables.membership import of_claims
from wobbliness.study.tables.tables import Tables

SPREADS = {"standard deviation": "std", "interquartile range": "iqr"}
"""Columns of the table of batches by the measure of spread: over all points, and of the box plot.

The paper shows box plots, in which outliers stand apart (section 3.1, Eq. 4).
"""

MAX_SMOOTHER_PVALUE = 0.001  # p-value of the directional test (C3, C9)


def chosen_tests(tables: Tables, claim: str, kind: str, test: str) -> pd.DataFrame:
    """Returns the rows of whole batches at the sigma chosen for a test."""
    rows = of_claims(tables.tests, claim)
    return full_batches(rows[(rows.kind == kind) & rows[CHOSEN_COLUMNS[test]]])


def chosen_areas(tables: Tables, question: Question) -> pd.DataFrame:
    """Returns the areas under the ROC curve of a question at the chosen sigmas, by test."""
    rows = tables.roc[(tables.roc.question == question.name) & (tables.roc.sigma == "chosen")]
    return rows.set_index("test")


def areas_text(rows: pd.DataFrame) -> str:
    """Returns the areas of `chosen_areas` with their intervals as a text."""
    if rows.empty:
        return "no batches"
    return "AUC " + ", ".join(
        f"{test} {row.auc:.2f} [{row.auc_lower:.2f}, {row.auc_upper:.2f}]"
        for test, row in rows.iterrows()
    )


def sizes_text(rows: pd.DataFrame, positives: str, negatives: str) -> str:
    """Returns the numbers of batches of `chosen_areas` as a text."""
    row = rows.iloc[0]
    return f"{row.num_positives} {positives} and {row.num_negatives} {negatives} batches"


def effect_settings(tables: Tables, rows: pd.DataFrame) -> str:
    """Returns the settings of C3 and C4 as a text."""
    return (
        f"{len(rows)} networks, {rows.num_points.iloc[0]} points a batch (paper: 25), n = "
        f"{tables.recipe.draws}"
    )


def spread_readings(
    networks: Sequence[pd.DataFrame], holds: Callable[[pd.DataFrame, str], bool]
) -> tuple[Reading, ...]:
    """Returns the reading of each measure of spread: whether a rule holds on every network.

    Args:
        networks: rows of the table of batches.
        holds: checks the rule on one of them, by a column of SPREADS.
    """
    return tuple(
        Reading(name=name, holds=all(holds(rows, column) for rows in networks))
        for name, column in SPREADS.items()
    )


def readings_compared(readings: Sequence[Reading]) -> str:
    """Returns in which readings a claim holds, as a text."""
    holding = [reading.name for reading in readings if reading.holds]
    if len(holding) == len(readings):
        return "holds in both readings"
    return f"holds by the {holding[0]} alone" if holding else "holds in neither reading"


def span(values: Iterable[float], form: str = ".3f") -> str:
    """Returns the smallest and the largest value as a text; one of them where both read alike."""
    found = [float(value) for value in values]
    low, high = format(min(found), form), format(max(found), form)
    return low if low == high else f"{low} to {high}"


def numbered(count: int, singular: str) -> str:
    """Returns a number of things as a text.

    >>> numbered(1, "network"), numbered(3, "network")
    ('1 network', '3 networks')
    """
    return f"{count} {singular}" + ("" if count == 1 else "s")


def mean_plot(rows: pd.DataFrame, kind: str) -> SmallPlot:
    """Returns the means of W of two batches of each network: clean points and another kind."""
    batches = {"clean": rows.clean_mean, kind: rows.suspect_mean}
    return SmallPlot(
        quantity="mean W (nats)",
        over="networks",
        ticks=tuple(f"network {number}" for number in range(1, len(rows) + 1)),
        series=tuple(Series(name=name, values=tuple(found)) for name, found in batches.items()),
        joined=False,
    )


def area_plot(tables: Tables, question: Question, limit: float | None = None) -> SmallPlot | None:
    """Returns the areas under the ROC curve of a question, at the chosen sigmas and at each."""
    rows = tables.roc[tables.roc.question == question.name]
    if rows.empty:
        return None
    ticks = sorted(set(rows.sigma), key=lambda sigma: -1 if sigma == "chosen" else float(sigma))
    series = []
    for test, found in rows.groupby("test", sort=False):
        at_ticks = found.set_index("sigma").reindex(ticks)
        columns = {
            "values": tuple(at_ticks.auc),
            "lower": tuple(at_ticks.auc_lower),
            "upper": tuple(at_ticks.auc_upper),
        }
        series.append(Series(name=str(test), **columns))
    return SmallPlot(
        quantity="area under the ROC curve",
        over="sigma",
        ticks=tuple(map(str, ticks)),
        series=tuple(series),
        bounds=(0, 1),
        limit=limit,
        joined=False,
    )


def with_prefix(prefix: str, statements: Iterable[str]) -> tuple[str, ...]:
    """Returns the statements, the first one with words in front; these alone if there are none."""
    first, *others = [*statements] or [""]
    return (f"{prefix}{first}", *others)


def one_after_another(networks: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Returns the statements on several networks; each but the first network is announced."""
    first, *others = networks
    return (*first, *(text for one in others for text in with_prefix("next network: ", one)))


def either(holds: bool, yes: str, no: str) -> str:
    """Returns the first word if it holds, else the second."""
    return yes if holds else no
