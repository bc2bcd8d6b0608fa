"""C3: W around an active trigger (section 3.2.2, Fig. 4 left; Fig. 1)."""

import math
from collections.abc import Iterator
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wobbliness.reports.html import number
from wobbliness.reports.plot_style import BLUE, GREEN, ORANGE, draw_boxes, label_boxes, side_by_side
from wobbliness.study.claims.base import Answer, Claim
from wobbliness.study.claims.reading import (
    MAX_SMOOTHER_PVALUE,
    chosen_tests,
    effect_settings,
    mean_plot,
    numbered,
    span,
    with_prefix,
)
from wobbliness.study.figures.figure import Chart, FigureFile
from wobbliness.study.figures.vega import COLOURS, SIGMA_TITLE, box, mean_tick
from wobbliness.study.tables.membership import of_claims
from wobbliness.study.tables.tables import Tables

MIN_CLEAN_TO_ACTIVE_RATIO = 5.0  # factor between mean W of clean and active-trigger points
KINDS = ["clean", "active", "inactive"]


def find(tables: Tables) -> Answer:
    """Compares W around the active trigger with W around clean points, on every network."""
    rows = chosen_tests(tables, "C3", "active", "directional")
    # a product, not a quotient: active W is often exactly 0
    is_far_lower = (rows.suspect_mean * MIN_CLEAN_TO_ACTIVE_RATIO <= rows.clean_mean).all()
    return Answer(
        statements=with_prefix("mean W ", _statements(tables, rows)),
        holds=bool(is_far_lower and (rows.directional_pvalue < MAX_SMOOTHER_PVALUE).all()),
        settings=effect_settings(tables, rows),
        summary=f"mean W {span(rows.suspect_mean)} with the trigger and {span(rows.clean_mean)} "
        f"without, on {numbered(len(rows), 'network')} (directional p "
        f"{span(rows.directional_pvalue, '.0e')})",
        number=number(max(map(_ratio, rows.suspect_mean, rows.clean_mean))),
        plot=mean_plot(rows, "active"),
    )


def _ratio(active: float, clean: float) -> float:
    """Computes how large W of triggered points is beside that of clean ones."""
    if clean == 0:
        return 1.0 if active == 0 else math.inf
    return float(active / clean)


def _statements(tables: Tables, rows: pd.DataFrame) -> Iterator[str]:
    levene = chosen_tests(tables, "C3", "active", "levene").set_index("network")
    networks = tables.networks.set_index("network")
    for row in rows.itertuples():
        yield (
            f"{row.clean_mean:.3f} clean, {row.suspect_mean:.3f} active at sigma {row.sigma:g} "
            f"({_factor(row)}, directional p {row.directional_pvalue:.0e}), "
            f"{levene.clean_mean[row.network]:.3f} and {levene.suspect_mean[row.network]:.3f} at "
            f"{levene.sigma[row.network]:g} (Levene p {levene.levene_pvalue[row.network]:.0e})"
        )
        yield (
            f"accuracy {networks.clean_accuracy[row.network]:.1%} clean, "
            f"{networks.backdoor_accuracy[row.network]:.1%} backdoor"
        )


def _factor(row: Any) -> str:
    return (
        f"factor {row.clean_mean / row.suspect_mean:.1f}" if row.suspect_mean > 0 else "every W = 0"
    )


def draw_votes(tables: Tables) -> Figure:
    """Draws Fig. 1: the votes around one clean and one triggered point, by sigma."""
    figure, axes = side_by_side(2)
    for axis, kind in zip(axes, ("clean", "active"), strict=True):
        _draw_votes(axis, tables.example, kind)
    axes[-1].legend(
        title="class named",
        frameon=False,
        fontsize=6,
        title_fontsize=7,
        loc="center left",
        bbox_to_anchor=(1, 0.5),
    )
    return figure


def _draw_votes(axis: Axes, example: pd.DataFrame, kind: str) -> None:
    grid, classes = sorted(example.sigma.unique()), sorted(example["class"].unique())
    shades = matplotlib.colormaps["cividis"](np.linspace(0, 1, len(classes)))
    rows = example[example.kind == kind]
    votes = rows.pivot(index="sigma", columns="class", values="votes").loc[grid]
    floor = np.zeros(len(grid))
    for name, shade in zip(classes, shades, strict=True):
        axis.bar(
            range(len(grid)),
            votes[name],
            bottom=floor,
            color=shade,
            edgecolor="white",
            linewidth=0.4,
            label=name,
        )
        floor += votes[name].to_numpy()
    title = f"a point of class {rows.label.iloc[0]}, {kind}"
    axis.set(xlabel=SIGMA_TITLE, ylabel="votes", title=title)
    axis.set_xticks(range(len(grid)), [f"{sigma:g}" for sigma in grid])


def vote_rows(tables: Tables) -> pd.DataFrame:
    """Returns the votes around one clean and one triggered point."""
    return tables.example


def draw(tables: Tables) -> Figure:
    """Draws Fig. 4: clean points against the active and the inactive trigger.

    On the first network.
    """
    points = of_claims(tables.points, "C3", "C4")
    points = points[points.network == points.network.iloc[0]]
    figure, axes = side_by_side(2)
    grid = sorted(points.sigma.unique())
    for axis, kind, colour in zip(axes, ("active", "inactive"), (ORANGE, GREEN), strict=True):
        clean, suspect = points[points.batch == "clean"], points[points.kind == kind]
        for batch, offset, shade in ((clean, -0.2, BLUE), (suspect, 0.2, colour)):
            series = [batch[batch.sigma == sigma].wobbliness for sigma in grid]
            draw_boxes(axis, series, np.arange(len(grid)) + offset, shade, width=0.34)
        title = f"clean (blue) and {kind} trigger {suspect.trigger.iloc[0]}"
        label_boxes(axis, SIGMA_TITLE, [f"{sigma:g}" for sigma in grid], title)
    return figure


def rows(tables: Tables) -> pd.DataFrame:
    """Returns W of the batches of the first network."""
    points = of_claims(tables.points, "C3", "C4")
    points = points[
        (points.network == points.network.iloc[0]) & points.batch.isin(("clean", "suspect"))
    ]
    return points[["network", "kind", "trigger", "sigma", "point", "wobbliness"]]


def chart() -> Chart:
    """Returns box plots of W of clean, active and inactive points side by side."""
    colour = {
        "field": "kind",
        "scale": {"domain": KINDS, "range": COLOURS},
        "legend": {"title": None, "direction": "horizontal"},
        "sort": KINDS,
    }
    offset = {"xOffset": {"field": "kind", "sort": KINDS}}
    batches, means = box("sigma", SIGMA_TITLE, size=14), mean_tick("sigma", SIGMA_TITLE)
    batches["encoding"] |= offset | {"color": colour}
    del batches["mark"]["color"]
    means["encoding"] |= offset
    means["mark"]["size"] = 14
    means["encoding"]["tooltip"].insert(0, {"field": "kind"})
    return {"layer": [batches, means]}


CLAIM = Claim(
    id="C3",
    topic="W is far lower around an active trigger",
    claim="Around an active trigger W is far lower than around clean points",
    paper="plot (Fig. 4 left), trigger accuracy 99 %",
    rule=f"on every network mean W at least {MIN_CLEAN_TO_ACTIVE_RATIO:g} times lower and "
    f"directional p below {MAX_SMOOTHER_PVALUE:g}, at the sigma chosen for that test on clean "
    "points",
    find=find,
    quantity="mean W with the trigger over mean W without",
    wanted=f"W ratio ≤ {1 / MIN_CLEAN_TO_ACTIVE_RATIO:g}",
    tables=("tests", "sigma"),
    figures=(
        FigureFile(
            name="fig1",
            title="Votes around one point (paper: Fig. 1)",
            caption="250 noisy copies of a clean point and of a triggered one: which classes the "
            "network names, by sigma. One colour everywhere is W = 0.",
            draw=draw_votes,
            rows=vote_rows,
            claims=("C3",),
            table="example",
            number=1,
        ),
        FigureFile(
            name="fig4",
            title="Backdoor smoothing (paper: Fig. 4)",
            caption="W of clean points (blue) beside W of points with the trigger that the network "
            "was trained on (active) and with another one (inactive), first network.",
            draw=draw,
            rows=rows,
            chart=chart,
            claims=("C3", "C4"),
            number=4,
        ),
    ),
)
