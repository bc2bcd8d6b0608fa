"""C1: W and the number of draws (section 3.1, Fig. 2 left)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from wobbliness.reports.plot_style import BLUE, draw_boxes, label_boxes, side_by_side
from wobbliness.reports.small_plot import Series, SmallPlot
from wobbliness.study.claims.base import Answer, Claim, Reading
from wobbliness.study.claims.reading import (
    SPREADS,
    either,
    numbered,
    one_after_another,
    readings_compared,
    span,
    spread_readings,
)
from wobbliness.study.figures.figure import Chart, FigureFile
from wobbliness.study.figures.vega import boxes, ordinal
from wobbliness.study.tables.membership import of_claims
from wobbliness.study.tables.tables import Tables

STABLE_DRAWS = 250  # from which W is stable
MAX_STABLE_CHANGE = 0.05  # relative change below which a mean or spread counts as stable
DRAWS_TITLE = "draws n"


@dataclass(frozen=True, kw_only=True)
class Course:
    """Quantity at the smallest number of draws, at STABLE_DRAWS and at the largest."""

    first: float
    stable: float
    last: float

    def __str__(self) -> str:
        return f"{self.first:.3f}, {self.stable:.3f}, {self.last:.3f}"

    @property
    def later_change(self) -> float:
        """Computes the relative change from STABLE_DRAWS to the largest number of draws."""
        if self.last == self.stable:  # a spread may be 0 from the first to the last
            return 0.0
        return abs(self.last / self.stable - 1) if self.stable else math.inf


def find(tables: Tables) -> Answer:
    """Compares mean and spread of clean W over the draws, on every network."""
    rows, sigma = of_claims(tables.batches, "C1"), widest_sigma(tables)
    networks = [batches for _, batches in rows.groupby("network", sort=False)]
    at_sigma = [_by_draws(batches, sigma) for batches in networks]
    readings = spread_readings(at_sigma, _holds)
    statements = one_after_another(_on_network(batches, sigma) for batches in networks)
    return Answer(
        statements=(f"{readings_compared(readings)}: {_difference(at_sigma[0])}", *statements),
        holds=all(reading.holds for reading in readings),
        settings=f"{len(networks)} networks, {rows.num_points.iloc[0]} clean points, sigma "
        f"{sigma:g}",
        readings=readings,
        summary=_summary(at_sigma, readings),
        number=f"{max(_ratio(by_draws, 'std') for by_draws in at_sigma):.2f}",
        plot=_plot(at_sigma),
    )


def _ratio(by_draws: pd.DataFrame, column: str) -> float:
    """Computes the spread at STABLE_DRAWS over that at the smallest number of draws."""
    found = _course(by_draws, column)
    return found.stable / found.first if found.first else math.inf


def _summary(at_sigma: Sequence[pd.DataFrame], readings: Sequence[Reading]) -> str:
    ratios = " and ".join(
        f"the {name} of W is {span((_ratio(by_draws, column) for by_draws in at_sigma), '.2f')}"
        for name, column in SPREADS.items()
    )
    later = max(
        _course(by_draws, column).later_change
        for by_draws in at_sigma
        for column in ("mean", *SPREADS.values())
    )
    return (
        f"at {STABLE_DRAWS} draws {ratios} times that at {at_sigma[0].index.min()}, on "
        f"{numbered(len(at_sigma), 'network')}, and mean and spreads change by at most {later:.1%} "
        f"after {STABLE_DRAWS}, so that the claim {readings_compared(readings)}"
    )


def _plot(at_sigma: Sequence[pd.DataFrame]) -> SmallPlot:
    """Returns mean and spreads over the draws, a line for each network."""
    columns = {"mean": "mean"} | SPREADS
    return SmallPlot(
        quantity="W (nats)",
        over="draws n",
        ticks=tuple(f"{draws}" for draws in at_sigma[0].index),
        series=tuple(
            Series(name=name, values=tuple(by_draws[column]))
            for name, column in columns.items()
            for by_draws in at_sigma
        ),
    )


def _by_draws(batches: pd.DataFrame, sigma: float) -> pd.DataFrame:
    return batches[batches.sigma == sigma].sort_values("draws").set_index("draws")


def _course(by_draws: pd.DataFrame, column: str) -> Course:
    values, draws = by_draws[column], by_draws.index
    return Course(
        first=float(values[draws.min()]),
        stable=float(values[STABLE_DRAWS]),
        last=float(values[draws.max()]),
    )


def _holds(by_draws: pd.DataFrame, spread: str) -> bool:
    """Checks the rule on one network, by one measure of spread."""
    mean, found = _course(by_draws, "mean"), _course(by_draws, spread)
    return (
        mean.stable > mean.first
        and found.stable < found.first
        and max(mean.later_change, found.later_change) <= MAX_STABLE_CHANGE
    )


def _difference(by_draws: pd.DataFrame) -> str:
    """Says why the readings may differ, with the quartiles of one network."""
    lower, upper, first = _course(by_draws, "q25"), _course(by_draws, "q75"), by_draws.index.min()
    return (
        f"the box is as wide as its two quartiles are apart, and these jump between the few values "
        f"that W can have with {first} votes (first network, n = {first} to {STABLE_DRAWS}: lower "
        f"{lower.first:.3f} to {lower.stable:.3f}, upper {upper.first:.3f} to {upper.stable:.3f}), "
        "while the standard deviation is over all points"
    )


def _on_network(batches: pd.DataFrame, sigma: float) -> tuple[str, ...]:
    # the verdict is at one sigma; the last statement also lists where else the spread falls
    by_draws = _by_draws(batches, sigma)
    first, last = by_draws.index.min(), by_draws.index.max()
    mean, corrected = _course(by_draws, "mean"), _course(by_draws, "miller_madow_mean")
    spreads = {name: _course(by_draws, column) for name, column in SPREADS.items()}
    falling = [f"{name} {_falls(found)}" for name, found in spreads.items()]
    outliers = [by_draws.num_outliers[draws] for draws in (first, STABLE_DRAWS, last)]
    return (
        f"mean {mean.first:.3f} at n = {first}, {mean.stable:.3f} at {STABLE_DRAWS}, "
        f"{mean.last:.3f} at {last} (Miller-Madow {corrected})",
        *(f"{name} {found}" for name, found in spreads.items()),
        f"outliers {', '.join(map(str, outliers))} of {by_draws.num_points[first]} points",
        f"mean {either(mean.stable > mean.first, 'rises', 'does not rise')}, "
        f"{', '.join(falling)}, largest change after {STABLE_DRAWS}: "
        + " and ".join(
            f"{max(mean.later_change, one.later_change):.1%}" for one in spreads.values()
        ),
        "over the grid "
        + ", ".join(
            f"{name} falls at sigma {_falls_at(batches, column)}"
            for name, column in SPREADS.items()
        ),
    )


def _falls(spread: Course) -> str:
    return either(spread.stable < spread.first, "falls", "does not fall")


def _falls_at(batches: pd.DataFrame, column: str) -> str:
    spreads = batches.pivot(index="sigma", columns="draws", values=column)
    falls = spreads[STABLE_DRAWS] < spreads[spreads.columns.min()]
    return " and ".join(f"{sigma:g}" for sigma in spreads.index[falls]) or "none"


def lacks_draws(tables: Tables) -> str:
    """Says which numbers of draws it needs and the recipe's grid lacks; empty if none."""
    lacking = sorted({STABLE_DRAWS, tables.recipe.draws} - set(tables.recipe.draws_grid))
    return f"draws_grid lacks {' and '.join(map(str, lacking))}" if lacking else ""


def widest_sigma(tables: Tables) -> float:
    """Returns the sigma where clean W spreads most at the recipe's draws."""
    rows = of_claims(tables.batches, "C1")
    rows = rows[rows.draws == tables.recipe.draws]
    return float(rows.sigma[rows["std"].idxmax()])


def draw(tables: Tables) -> Figure:
    """Draws box plots over the draws, with the Miller-Madow means."""
    points, sigma = of_claims(tables.points, "C1"), widest_sigma(tables)
    points = points[points.sigma == sigma]
    figure, (axis,) = side_by_side(1)
    grid = sorted(points.draws.unique())
    batches = [points[points.draws == draws] for draws in grid]
    draw_boxes(axis, [batch.wobbliness for batch in batches], range(len(grid)), BLUE)
    corrected = [batch.miller_madow.mean() for batch in batches]
    axis.plot(
        range(len(grid)), corrected, "D:", color="black", markersize=3, label="mean, Miller-Madow"
    )
    label_boxes(axis, DRAWS_TITLE, [str(draws) for draws in grid], f"clean points, sigma {sigma:g}")
    # above the axes, which the boxes fill
    axis.legend(
        frameon=False, fontsize=7, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0
    )
    return figure


def rows(tables: Tables) -> pd.DataFrame:
    """Returns W of the clean points at each number of draws."""
    points, sigma = of_claims(tables.points, "C1"), widest_sigma(tables)
    return points[points.sigma == sigma][
        ["network", "sigma", "draws", "point", "wobbliness", "miller_madow"]
    ]


def chart() -> Chart:
    """Returns box plots of W; diamonds are the means after the Miller-Madow correction."""
    drawn, x = boxes("draws", DRAWS_TITLE), ordinal("draws", DRAWS_TITLE)
    corrected = {"aggregate": "mean", "field": "miller_madow", "type": "quantitative"}
    mark = {
        "type": "point",
        "shape": "diamond",
        "filled": True,
        "size": 60,
        "color": "currentColor",
    }
    tooltip = [x, corrected | {"title": "mean W, Miller-Madow", "format": ".3f"}]
    diamonds = {"mark": mark, "encoding": {"x": x, "y": corrected, "tooltip": tooltip}}
    return drawn | {"layer": [*drawn["layer"], diamonds]}


CLAIM = Claim(
    id="C1",
    topic="W settles by 250 draws",
    claim="As the number of draws n grows, the mean of W rises and its spread falls; both are "
    "stable from n = 250 on",
    paper="plot (Fig. 2 left)",
    rule=f"mean higher and spread lower at n = {STABLE_DRAWS} than at the smallest n; both change "
    f"by at most {MAX_STABLE_CHANGE:.0%} from {STABLE_DRAWS} to the largest n, at the sigma where "
    "the standard deviation of clean W is largest; spread is read twice, as standard deviation and "
    "as interquartile range",
    find=find,
    quantity=f"standard deviation of W at {STABLE_DRAWS} draws over that at the smallest number",
    wanted="spread ratio < 1",
    remark="The two readings can differ because a box is as wide as its two quartiles are apart, "
    "and these jump between the few values that W can have with ten votes, while the standard "
    "deviation is over all points. Part of the rise of the mean is the bias of the entropy of few "
    "votes, which the Miller-Madow correction takes away.",
    lacks=lacks_draws,
    tables=("batches",),
    figures=(
        FigureFile(
            name="fig2-draws",
            title="W and the number of draws (paper: Fig. 2 left)",
            caption="Box plots of W over the clean points; the line across a box: mean. Diamonds: "
            "the mean with the Miller-Madow correction; what of the rise they lack is the plug-in "
            "estimator's bias, not the network.",
            draw=draw,
            rows=rows,
            chart=chart,
            claims=("C1",),
            number=2,
        ),
    ),
)
