"""C2: the spread of W and the standard deviation of the noise (section 3.1, Fig. 2 right)."""

from collections.abc import Sequence
from functools import partial

import numpy as np
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
from wobbliness.study.figures.figure import FigureFile
from wobbliness.study.figures.vega import SIGMA_TITLE, boxes
from wobbliness.study.tables.membership import of_claims
from wobbliness.study.tables.tables import Tables

LOW_SIGMA = 0.01  # at which the paper sees no spread any more
MAX_SPREAD_AT_LOW_SIGMA = 0.02  # nats: a spread of W below it counts as none


def find(tables: Tables) -> Answer:
    """Follows the spread of clean W from the largest sigma down, on every network."""
    rows = of_claims(tables.batches, "C2")
    networks = [
        batches.sort_values("sigma").set_index("sigma")
        for _, batches in rows.groupby("network", sort=False)
    ]
    readings = spread_readings(networks, _holds)
    statements = one_after_another(_on_network(by_sigma) for by_sigma in networks)
    return Answer(
        statements=(f"{readings_compared(readings)}: {_difference(networks[0])}", *statements),
        holds=all(reading.holds for reading in readings),
        settings=f"{len(networks)} networks, {rows.num_points.iloc[0]} clean points, n = "
        f"{rows.draws.iloc[0]}",
        readings=readings,
        summary=_summary(networks, readings),
        number=f"{max(_at_low_sigma(by_sigma, 'std') for by_sigma in networks):.3f}",
        plot=_plot(networks),
    )


def _at_low_sigma(by_sigma: pd.DataFrame, column: str) -> float:
    return float(by_sigma[column][_low_sigma(by_sigma.index)])


def _summary(networks: Sequence[pd.DataFrame], readings: Sequence[Reading]) -> str:
    left = " and ".join(
        f"the {name} of W is {span(_at_low_sigma(by_sigma, column) for by_sigma in networks)}"
        for name, column in SPREADS.items()
    )
    columns = SPREADS.values()
    peaks = span((by_sigma[column].idxmax() for by_sigma in networks for column in columns), "g")
    falling = " and ".join(
        str(sum(_falls(by_sigma[column]) for by_sigma in networks)) for column in columns
    )
    return (
        f"at sigma {_low_sigma(networks[0].index):g} {left} nats, and they fall at every step down "
        f"the grid on {falling} of {numbered(len(networks), 'network')} (largest at sigma {peaks}, "
        f"grid up to {max(networks[0].index):g}), so that the claim {readings_compared(readings)}"
    )


def _plot(networks: Sequence[pd.DataFrame]) -> SmallPlot:
    """Returns both spreads over sigma, a line for each network."""
    return SmallPlot(
        quantity="spread of W (nats)",
        over="sigma",
        ticks=tuple(f"{sigma:g}" for sigma in networks[0].index),
        series=tuple(
            Series(name=name, values=tuple(by_sigma[column]))
            for name, column in SPREADS.items()
            for by_sigma in networks
        ),
    )


def _holds(by_sigma: pd.DataFrame, column: str) -> bool:
    """Checks the rule on one network, by one measure of spread."""
    spread = by_sigma[column]
    return _falls(spread) and bool(spread[_low_sigma(spread.index)] < MAX_SPREAD_AT_LOW_SIGMA)


def _falls(spread: pd.Series) -> bool:
    # rows ascend by sigma: a spread that falls with sigma rises along them, after zeros
    values = spread.to_numpy()
    is_none_left = (values[:-1] == 0) & (values[1:] == 0)
    return bool(np.all((np.diff(values) > 0) | is_none_left))


def _low_sigma(sigmas: pd.Index) -> float:
    """Returns LOW_SIGMA or the next lower one of the grid; the lowest where all are above it."""
    return float(max([sigma for sigma in sigmas if sigma <= LOW_SIGMA], default=min(sigmas)))


def _difference(by_sigma: pd.DataFrame) -> str:
    """Says why the readings may differ, with the low sigma of one network."""
    row = by_sigma.loc[_low_sigma(by_sigma.index)]
    found = (
        f"on the first network the interquartile range is {row.iqr:.3f} at sigma {row.name:g} and "
        f"the standard deviation {row['std']:.3f}"
    )
    if row.q75 > 0 or row.num_outliers == 0:
        return found
    return (
        f"{found}, for the box plot sets the {row.num_outliers:.0f} of {row.num_points:.0f} points "
        "that wobble at all apart as outliers, and the standard deviation is made of them"
    )


def _on_network(by_sigma: pd.DataFrame) -> tuple[str, ...]:
    falls = [
        f"{name} largest at sigma {by_sigma[column].idxmax():g}, "
        f"{either(_falls(by_sigma[column]), 'and', 'not')} falling at every step"
        for name, column in SPREADS.items()
    ]
    listed = {
        name: ", ".join(f"{value:.3f} at {sigma:g}" for sigma, value in by_sigma[column].items())
        for name, column in SPREADS.items()
    }
    outliers = ", ".join(f"{count} at {sigma:g}" for sigma, count in by_sigma.num_outliers.items())
    return (
        *(f"{name} {values}" for name, values in listed.items()),
        f"outliers {outliers}, of {by_sigma.num_points.iloc[0]} points",
        *falls,
    )


def draw(tables: Tables) -> Figure:
    """Draws box plots over sigma."""
    points = of_claims(tables.points, "C2")
    figure, (axis,) = side_by_side(1)
    grid = sorted(points.sigma.unique())
    series = [points[points.sigma == sigma].wobbliness for sigma in grid]
    draw_boxes(axis, series, range(len(grid)), BLUE)
    label_boxes(axis, SIGMA_TITLE, [f"{sigma:g}" for sigma in grid], "clean points")
    return figure


def rows(tables: Tables) -> pd.DataFrame:
    """Returns W of the clean points at each sigma."""
    return of_claims(tables.points, "C2")[["network", "sigma", "draws", "point", "wobbliness"]]


CLAIM = Claim(
    id="C2",
    topic="Less noise, less spread of W",
    claim="As sigma falls the spread of W falls; none is left at 0.01",
    paper="plot (Fig. 2 right)",
    rule="spread falls at every step from the largest sigma down until none is left, and is below "
    f"{MAX_SPREAD_AT_LOW_SIGMA} nats at {LOW_SIGMA:g}; spread is read twice, as standard deviation "
    "and as interquartile range",
    find=find,
    quantity=f"standard deviation of W at sigma {LOW_SIGMA:g}, nats",
    wanted=f"spread < {MAX_SPREAD_AT_LOW_SIGMA} nats",
    remark="The two readings differ at little noise because the box plot sets the few points that "
    "wobble at all apart as outliers, and the standard deviation is made of them. Under strong "
    "noise both spreads are small again, for all points wobble alike.",
    tables=("batches",),
    figures=(
        FigureFile(
            name="fig2-sigma",
            title="W and the standard deviation of the noise (paper: Fig. 2 right)",
            caption="Box plots of W over the clean points at each sigma; the line across a box: "
            "mean.",
            draw=draw,
            rows=rows,
            chart=partial(boxes, "sigma", SIGMA_TITLE),
            claims=("C2",),
            number=2,
        ),
    ),
)
