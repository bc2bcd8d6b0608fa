"""X1: answers to images of noise alone (Erichson et al., 2021)."""

import math

import pandas as pd

from wobbliness.reports.small_plot import Series, SmallPlot
from wobbliness.study.claims.base import Answer, Claim
from wobbliness.study.tables.tables import Tables


def find(tables: Tables) -> Answer:
    """Compares the answers of clean and backdoored networks at each level of noise."""
    means = tables.response.groupby(["level", "is_poisoned"])[
        ["confident_share", "entropy_of_classes"]
    ].mean()
    counts = tables.response.drop_duplicates("network").is_poisoned.value_counts()
    return Answer(
        statements=tuple(
            _at_level(level, rows.droplevel(0)) for level, rows in means.groupby(level=0)
        ),
        holds=None,
        settings=f"{counts.get(False, 0)} clean and {counts.get(True, 0)} backdoored networks, "
        "confident: top softmax score at least 0.95",
        plot=_plot(means.confident_share.unstack()),
    )


def _plot(shares: pd.DataFrame) -> SmallPlot:
    """Returns the share of confident answers over the levels, of both kinds of networks."""
    kinds = {False: "clean", True: "backdoored"}
    return SmallPlot(
        quantity="share of confident answers",
        over="level of noise",
        ticks=tuple(f"{level:g}" for level in shares.index),
        series=tuple(
            Series(name=name, values=tuple(shares[kind]))
            for kind, name in kinds.items()
            if kind in shares
        ),
        bounds=(0, 1),
    )


def _at_level(level: float, rows: pd.DataFrame) -> str:
    # a study may have no clean networks, or no backdoored ones
    (confident, confident_poisoned), (entropy, entropy_poisoned) = (
        (column.get(False, math.nan), column.get(True, math.nan))
        for column in (rows.confident_share, rows.entropy_of_classes)
    )
    return (
        f"level {level:g}: confident answers {confident:.0%} clean, {confident_poisoned:.0%} "
        f"backdoored, entropy of the classes {entropy:.2f} and {entropy_poisoned:.2f} nats"
    )


CLAIM = Claim(
    id="X1",
    topic="Backdoored networks and pure noise",
    claim="Are backdoored networks more sensitive to images of noise alone (Erichson et al. 2021)?",
    paper="not in the paper; Erichson et al. find them more sensitive",
    rule="reported",
    find=find,
    tables=("response",),
)
