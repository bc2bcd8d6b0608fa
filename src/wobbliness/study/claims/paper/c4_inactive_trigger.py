"""C4: W around an inactive trigger (section 3.2.2, Fig. 4 right, which is drawn with C3)."""

from collections.abc import Iterator

import pandas as pd

from wobbliness.reports.html import number
from wobbliness.study.claims.base import Answer, Claim
from wobbliness.study.claims.reading import (
    chosen_tests,
    effect_settings,
    mean_plot,
    numbered,
    span,
    with_prefix,
)
from wobbliness.study.tables.membership import of_claims
from wobbliness.study.tables.tables import Tables

# p-value of the directional test above which a batch does not count as smoother
MIN_NOT_SMOOTHER_PVALUE = 0.05


def find(tables: Tables) -> Answer:
    """Compares W around the inactive trigger with W around clean points, on every network."""
    rows = chosen_tests(tables, "C4", "inactive", "directional")
    return Answer(
        statements=with_prefix("mean W ", _statements(tables, rows)),
        holds=bool((rows.directional_pvalue > MIN_NOT_SMOOTHER_PVALUE).all()),
        settings=effect_settings(tables, rows),
        summary=f"mean W {span(rows.suspect_mean)} with the inactive trigger and "
        f"{span(rows.clean_mean)} without, on {numbered(len(rows), 'network')} (directional p "
        f"{span(rows.directional_pvalue, '.2g')})",
        number=number(float(rows.directional_pvalue.min())),
        plot=mean_plot(rows, "inactive"),
    )


def _statements(tables: Tables, rows: pd.DataFrame) -> Iterator[str]:
    levene = chosen_tests(tables, "C4", "inactive", "levene").set_index("network")
    batches = of_claims(tables.batches, "C4")
    batches = batches[batches.kind == "inactive"].drop_duplicates("network").set_index("network")
    for row in rows.itertuples():
        yield (
            f"{row.clean_mean:.3f} clean, {row.suspect_mean:.3f} inactive at sigma {row.sigma:g} "
            f"({_direction(row.directional_pvalue)}, directional p {row.directional_pvalue:.2g}), "
            f"{levene.clean_mean[row.network]:.3f} and {levene.suspect_mean[row.network]:.3f} at "
            f"{levene.sigma[row.network]:g} (Levene p {levene.levene_pvalue[row.network]:.2g})"
        )
        yield (
            f"{batches.accuracy_on_attacker_labels[row.network]:.0%} on poison labels, "
            f"{batches.accuracy_on_clean_labels[row.network]:.0%} on clean labels"
        )


def _direction(pvalue: float) -> str:
    if pvalue <= MIN_NOT_SMOOTHER_PVALUE:
        return "lower"
    return "higher" if pvalue >= 1 - MIN_NOT_SMOOTHER_PVALUE else "no difference"


CLAIM = Claim(
    id="C4",
    topic="W is not lower around an inactive trigger",
    claim="Around an inactive trigger W looks like clean: it is not lower",
    paper="plot (Fig. 4 right), 9 % on poison labels, 89 % on clean labels",
    rule=f"on every network W is not lower: directional p above {MIN_NOT_SMOOTHER_PVALUE:g}, at "
    "the sigma chosen for it on clean points",
    find=find,
    quantity="directional p-value of W being lower with the inactive trigger",
    wanted=f"p > {MIN_NOT_SMOOTHER_PVALUE:g}",
    tables=("tests", "sigma"),
)
