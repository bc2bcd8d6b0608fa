"""C2: the spread of W and the standard deviation of the noise (section 3.1, Fig. 2 right)."""

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from wobbliness.reports.plot_style import BLUE, draw_boxes, label_boxes, side_by_side
from wobbliness.study.claims.base import Answer, Claim
from wobbliness.study.claims.reading import either, one_after_another
from wobbliness.study.figures.figure import FigureFile
from wobbliness.study.figures.vega import SIGMA_TITLE, boxes
from wobbliness.study.tables.membership import of_claims
from wobbliness.study.tables.tables import Tables

MAX_STD_AT_LOW_SIGMA = 0.02  # nats: a standard deviation of W below it counts as none


def find(tables: Tables) -> Answer:
    """Follows the spread of clean W from the largest sigma down, on every network."""
    rows = of_claims(tables.batches, "C2")
    found = [
        _on_network(batches.sort_values("sigma"))
        for _, batches in rows.groupby("network", sort=False)
    ]
    return Answer(
        statements=one_after_another(statements for statements, _ in found),
        holds=all(holds for _, holds in found),
        settings=f"{len(found)} networks, {rows.num_points.iloc[0]} clean points, n = "
        f"{rows.draws.iloc[0]}",
    )


def _on_network(rows: pd.DataFrame) -> tuple[tuple[str, ...], bool]:
    spread = dict(zip(rows.sigma, rows["std"], strict=True))
    # rows ascend by sigma: a spread that falls with sigma rises along them
    falls = bool(all(np.diff(list(spread.values())) > 0))
    peak, smallest = max(spread, key=lambda sigma: spread[sigma]), min(spread)
    listed = ", ".join(f"{value:.3f} at {sigma:g}" for sigma, value in spread.items())
    statements = (
        f"standard deviation {listed}",
        f"largest at sigma {peak:g}, {either(falls, 'and', 'not')} falling at every step",
    )
    return statements, bool(falls and spread[smallest] < MAX_STD_AT_LOW_SIGMA)


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
    rule="standard deviation falls at every step from the largest sigma down, and is below "
    f"{MAX_STD_AT_LOW_SIGMA} nats at 0.01",
    find=find,
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
