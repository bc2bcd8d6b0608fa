"""X5: the sigma at which W of triggered inputs rises, and the l2 norm of the trigger.

A matched filter finds a fixed pattern in white noise with a signal-to-noise ratio of l2 norm over
sigma: contrast counts for nothing else.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from wobbliness.reports.plot_style import BLUE
from wobbliness.statistics.two_sample import kendall
from wobbliness.study.claims.base import Answer, Claim
from wobbliness.study.figures.figure import FigureFile
from wobbliness.study.tables.correlations import MIN_BACKDOORS
from wobbliness.study.tables.ladders import RISEN
from wobbliness.study.tables.tables import Tables

NORMS = {"l2": "l2 norm", "contrast": "contrast"}


def find(tables: Tables) -> Answer:
    """Correlates the sigma at which W has risen with both norms of the trigger."""
    rows = tables.matched_filter
    kept = counted(rows)
    size = rows.iloc[0]
    return Answer(
        statements=(*_correlations(kept), *_triggers(rows, kept)),
        holds=None,
        settings=f"{len(rows)} networks of one trigger each, {size.num_points} points a batch, n = "
        f"{size.draws}, risen: median W of {RISEN:.2f} nats",
    )


def counted(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the triggers that function, and of which W rises on the ladder."""
    # Where the backdoor was not learnt, W does not tell the trigger's strength against noise.
    return rows[rows.is_functioning.astype(bool) & rows.sigma_risen.notna()]


def _correlations(kept: pd.DataFrame) -> Iterator[str]:
    """Yields Kendall's tau with each norm; the p-value is exact where there are no ties."""
    for name, shown in NORMS.items():
        values = kept[[name, "sigma_risen"]].astype(float)
        # Equal values have no order, and tau is not defined.
        if len(kept) < MIN_BACKDOORS or (values.max() == values.min()).any():
            yield f"too few triggers to correlate sigma and {shown}"
            continue
        tau = kendall(values[name], values.sigma_risen)
        yield (
            f"sigma and {shown}: Kendall's tau {tau.coefficient:.2f} (p {tau.pvalue:.2g}, only "
            f"{tau.num_points} triggers)"
        )


def _triggers(rows: pd.DataFrame, kept: pd.DataFrame) -> Iterator[str]:
    ordered = kept.sort_values("sigma_risen")
    yield "by sigma: " + (
        ", ".join(
            f"{row.trigger} {row.sigma_risen:.2g} (l2 {row.l2:.2g}, contrast {row.contrast:.2g})"
            for row in ordered.itertuples()
        )
        or "none"
    )
    left_out = rows[~rows.network.isin(kept.network)]
    if len(left_out):
        yield "left out, for they do not function or do not rise: " + ", ".join(left_out.trigger)


def draw(tables: Tables) -> Figure:
    """Draws median W of triggered inputs over sigma, and where it has risen over the l2 norm."""
    rows = tables.matched_filter.sort_values("l2")
    figure = Figure(figsize=(8.4, 3.2), layout="constrained")
    curves, points = figure.subplots(1, 2)
    _draw_curves(curves, tables.ladders, rows)
    _draw_points(points, rows, counted(rows))
    return figure


def _draw_curves(axis: Axes, ladders: pd.DataFrame, rows: pd.DataFrame) -> None:
    # Rows are sorted by l2; the bright end of the colour map is hard to see on white.
    colours = colormaps["viridis"](np.linspace(0, 0.9, len(rows)))
    for row, colour in zip(rows.itertuples(), colours, strict=True):
        rungs = ladders[ladders.network == row.network].sort_values("sigma")
        line = "-" if row.is_functioning else ":"
        label = f"{row.trigger} ({row.l2:.2g})"
        axis.plot(rungs.sigma, rungs.triggered_median, line, color=colour, label=label)
    axis.axhline(RISEN, color="grey", linewidth=0.8)
    axis.set(xlabel="sigma (pixel units)", ylabel="median W of triggered inputs", xscale="log")
    _label_logarithmic(axis.xaxis)
    axis.legend(frameon=False, fontsize=6, title="trigger (l2)", title_fontsize=6)


def _draw_points(axis: Axes, rows: pd.DataFrame, kept: pd.DataFrame) -> None:
    risen = rows[rows.sigma_risen.notna()]
    for row in risen.itertuples():
        face = BLUE if row.network in set(kept.network) else "white"
        sigma = float(row.sigma_risen)
        axis.plot(row.l2, sigma, "o", color=BLUE, markerfacecolor=face, markersize=5)
        axis.annotate(row.trigger, (row.l2, sigma), (3, 3), textcoords="offset points", fontsize=6)
    axis.set(xlabel="mean l2 norm of the trigger's change", ylabel="sigma at which W has risen")
    # A logarithmic scale cannot be fitted to no points.
    if len(risen):
        axis.set(xscale="log", yscale="log")
        _label_logarithmic(axis.xaxis)
        _label_logarithmic(axis.yaxis)


def _label_logarithmic(axis: Axis) -> None:
    """Labels 1, 2 and 5 of each power of ten as plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def figure_rows(tables: Tables) -> pd.DataFrame:
    """Returns the rows of the right panel."""
    return tables.matched_filter


CLAIM = Claim(
    id="X5",
    topic="A trigger gives way to noise by its l2 norm",
    claim="Does the sigma at which W of triggered inputs rises follow the l2 norm of the trigger, "
    "and not its contrast, as for a matched filter?",
    paper="not in the paper",
    rule="reported",
    find=find,
    tables=("matched_filter",),
    only_if_planned=True,
    figures=(
        FigureFile(
            name="matched-filter",
            title="The trigger as a signal in white noise",
            caption="Left: median W of triggered inputs by sigma, one T1 network a trigger, dark "
            "for small l2 norms; dotted where the backdoor was not well learnt. Right: the sigma "
            "at which that median first reaches the grey line, half of log 2, over the mean l2 "
            "norm of what the trigger changes (hollow: not well learnt).",
            draw=draw,
            rows=figure_rows,
            claims=("X5",),
            table="matched_filter",
        ),
    ),
)
