"""C1: W and the number of draws (section 3.1, Fig. 2 left)."""

import pandas as pd
from matplotlib.figure import Figure

from wobbliness.reports.plot_style import BLUE, draw_boxes, label_boxes, side_by_side
from wobbliness.study.claims.base import Answer, Claim
from wobbliness.study.claims.reading import either, one_after_another
from wobbliness.study.figures.figure import Chart, FigureFile
from wobbliness.study.figures.vega import boxes, ordinal
from wobbliness.study.tables.membership import of_claims
from wobbliness.study.tables.tables import Tables

STABLE_DRAWS = 250  # from which W is stable
MAX_STABLE_CHANGE = 0.05  # relative change below which a mean or spread counts as stable
DRAWS_TITLE = "draws n"


def find(tables: Tables) -> Answer:
    """Compares mean and spread of clean W over the draws, on every network."""
    rows, sigma = of_claims(tables.batches, "C1"), widest_sigma(tables)
    found = [_on_network(batches, sigma) for _, batches in rows.groupby("network", sort=False)]
    return Answer(
        statements=one_after_another(statements for statements, _ in found),
        holds=all(holds for _, holds in found),
        settings=f"{len(found)} networks, {rows.num_points.iloc[0]} clean points, sigma {sigma:g}",
    )


def _on_network(batches: pd.DataFrame, sigma: float) -> tuple[tuple[str, ...], bool]:
    # the verdict is at one sigma; the last statement also lists where else the spread falls
    spreads = batches.pivot(index="sigma", columns="draws", values="std")
    rows = batches[batches.sigma == sigma].sort_values("draws").set_index("draws")
    first, last = rows.index.min(), rows.index.max()
    mean, std, corrected = rows["mean"], rows["std"], rows.miller_madow_mean
    rises, falls = bool(mean[250] > mean[first]), bool(std[250] < std[first])
    falls_at = [f"{at:g}" for at in spreads.index[spreads[250] < spreads[first]]]
    # relative change from 250 draws to the largest number, of mean and spread
    stable = max(abs(mean[last] / mean[250] - 1), abs(std[last] / std[250] - 1))
    statements = (
        f"mean {mean[first]:.3f} at n = {first}, {mean[250]:.3f} at 250, {mean[last]:.3f} at "
        f"{last} (Miller-Madow {corrected[first]:.3f}, {corrected[250]:.3f}, "
        f"{corrected[last]:.3f})",
        f"standard deviation {std[first]:.3f}, {std[250]:.3f}, {std[last]:.3f}",
        f"mean {either(rises, 'rises', 'does not rise')}, spread "
        f"{either(falls, 'falls', 'does not fall')}, largest change after 250: {stable:.1%}",
        f"over the grid the spread falls at sigma {', '.join(falls_at) or 'none'}",
    )
    return statements, bool(rises and falls and stable <= MAX_STABLE_CHANGE)


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
    rule="mean higher and standard deviation lower at n = 250 than at the smallest n; both change "
    f"by at most {MAX_STABLE_CHANGE:.0%} from 250 to the largest n, at the sigma where clean W "
    "spreads most",
    find=find,
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
