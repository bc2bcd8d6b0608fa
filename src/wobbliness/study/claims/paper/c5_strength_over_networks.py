"""C5: backdoor accuracy and W over networks (section 3.2.3, Fig. 5 left)."""

from functools import partial

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wobbliness.reports.plot_style import BLUE, GREEN, ORANGE, PINK, RED, side_by_side
from wobbliness.reports.small_plot import Series, SmallPlot
from wobbliness.study.claims.base import Answer, Claim
from wobbliness.study.claims.reading import with_prefix
from wobbliness.study.figures.figure import Chart, FigureFile
from wobbliness.study.figures.vega import COLOURS, by_legend, if_in_legend
from wobbliness.study.tables.tables import Tables

# both coefficients at most, and both p-values below
MAX_CORRELATION, MAX_CORRELATION_PVALUE = -0.4, 0.01
QUANTITY = "Kendall's tau of backdoor accuracy and mean W of triggered points"
WANTED = f"tau ≤ {MAX_CORRELATION:g}"
COLOUR_CYCLE = (ORANGE, BLUE, GREEN, PINK, RED)


def find_correlation(tables: Tables, *, claim: str, unit: str) -> Answer:
    """Reads the correlation of W and backdoor accuracy over networks (C5) or classes (C6).

    The answer is at the sigma that clean points choose; the others are listed only.
    """
    rows = tables.correlations[tables.correlations.claim == claim]
    row = rows[rows.is_chosen].iloc[0]
    others = [
        f"{other.tau:.2f}, {other.r:.2f} at {other.sigma:g}"
        for other in rows[~rows.is_chosen].itertuples()
    ]
    chosen = (
        f"tau {row.tau:.2f} [{row.tau_lower:.2f}, {row.tau_upper:.2f}] (p {row.tau_pvalue:.1g}), "
        f"Pearson {row.r:.2f} [{row.r_lower:.2f}, {row.r_upper:.2f}] (p {row.r_pvalue:.1g}) over "
        f"{row.num_backdoors} backdoors, {row.num_left_out} left out"
    )
    holds = (
        max(row.tau, row.r) <= MAX_CORRELATION
        and max(row.tau_pvalue, row.r_pvalue) < MAX_CORRELATION_PVALUE
    )
    here = tables.strength[tables.strength.claim == claim]
    return Answer(
        statements=(chosen, *with_prefix("at the other sigmas ", others)),
        holds=bool(holds),
        settings=f"{len(here) // here.sigma.nunique()} {unit}, {here.num_points.iloc[0]} points "
        f"each, sigma {row.sigma:g}",
        number=f"{row.tau:.2f}",
        plot=_plot(rows.sort_values("sigma")),
    )


def _plot(rows: pd.DataFrame) -> SmallPlot:
    """Returns both coefficients with their intervals over sigma; an asterisk marks the chosen one.

    Some sigmas may have too few backdoors for an interval.
    """
    names = {"tau": "Kendall's tau", "r": "Pearson's r"}
    return SmallPlot(
        quantity="correlation of backdoor accuracy and mean W",
        over="sigma",
        ticks=tuple(f"{row.sigma:g}{'*' * bool(row.is_chosen)}" for row in rows.itertuples()),
        series=tuple(
            Series(
                name=shown,
                values=tuple(rows[name]),
                lower=tuple(rows[f"{name}_lower"]),
                upper=tuple(rows[f"{name}_upper"]),
            )
            for name, shown in names.items()
        ),
        bounds=(-1, 1),
        limit=MAX_CORRELATION,
        joined=False,
    )


def draw(tables: Tables) -> Figure:
    """Draws Fig. 5: mean W of triggered points over backdoor accuracy.

    One dot is a network (C5) or a network's class (C6).
    """
    claims = [claim for claim in ("C5", "C6") if (tables.correlations.claim == claim).any()]
    figure, axes = side_by_side(len(claims))
    for axis, claim in zip(axes, claims, strict=True):
        _draw_claim(axis, tables, claim)
    return figure


def _draw_claim(axis: Axes, tables: Tables, claim: str) -> None:
    rows = tables.correlations[tables.correlations.claim == claim]
    found = rows[rows.is_chosen].iloc[0]
    dots = tables.strength[
        (tables.strength.claim == claim) & (tables.strength.sigma == found.sigma)
    ]
    groups = dots.groupby("trigger", sort=False)
    for (name, group), marker, colour in zip(groups, "o^sDv", COLOUR_CYCLE, strict=False):
        # hollow: below random guess, left out of the correlation
        kept, out = group[group.is_learnt], group[~group.is_learnt]
        axis.scatter(
            kept.backdoor_accuracy,
            kept.mean_w,
            s=14,
            marker=marker,
            color=colour,
            label=f"trigger {name}",
        )
        axis.scatter(
            out.backdoor_accuracy,
            out.mean_w,
            s=14,
            marker=marker,
            facecolors="none",
            edgecolors=colour,
        )
    axis.set(
        xlim=(-0.02, 1.02),
        xlabel="backdoor accuracy",
        ylabel="mean W (nats)",
        title=f"{claim}, sigma {found.sigma:g}: tau {found.tau:.2f}, r {found.r:.2f}",
    )
    axis.legend(frameon=False, fontsize=7)


def rows(tables: Tables) -> pd.DataFrame:
    """Returns the backdoors of C5 and C6 at the sigma chosen on clean points."""
    chosen = tables.correlations[tables.correlations.is_chosen]
    rows = tables.strength.merge(chosen[["claim", "sigma", "tau", "r"]], on=["claim", "sigma"])
    titles = [
        f"{row.claim}, sigma {row.sigma:g}: tau {row.tau:.2f}, r {row.r:.2f}"
        for row in rows.itertuples()
    ]
    return rows.drop(columns=["tau", "r"]).assign(panel=titles)


def chart() -> Chart:
    """Returns a dot for each backdoor; hollow where it was left out."""
    names = ("network", "trigger", "label", "backdoor_accuracy", "mean_w", "is_learnt")
    is_kept = {"test": "datum.is_learnt === 'True'", "value": 0.7}
    return {
        "mark": {"type": "point", "size": 45, "tooltip": True},
        "params": [by_legend("trigger")],
        "encoding": {
            "x": {
                "field": "backdoor_accuracy",
                "type": "quantitative",
                "title": "backdoor accuracy",
                "scale": {"domain": [0, 1]},
            },
            "y": {"field": "mean_w", "type": "quantitative", "title": "mean W (nats)"},
            "color": {"field": "trigger", "scale": {"range": [COLOURS[1], COLOURS[0], COLOURS[2]]}},
            "shape": {"field": "trigger"},
            "fillOpacity": {"condition": is_kept, "value": 0},
            "opacity": if_in_legend(),
            "tooltip": [{"field": name, "title": name.replace("_", " ")} for name in names],
        },
    }


CLAIM = Claim(
    id="C5",
    topic="Better backdoors are smoother, over networks",
    claim="The better a backdoor works, the lower is W around its trigger, over networks",
    paper="Kendall tau -0.50 (p 0.001), Pearson -0.77 (p 7.5e-5): CIFAR-10 T1, 24 networks "
    "(Fig. 5 left)",
    rule=f"both coefficients at most {MAX_CORRELATION:g} with p below "
    f"{MAX_CORRELATION_PVALUE:g}, backdoors below random guess left out, at the sigma chosen on "
    "the clean points of all networks together",
    find=partial(find_correlation, claim="C5", unit="networks"),
    quantity=QUANTITY,
    wanted=WANTED,
    tables=("correlations",),
    figures=(
        FigureFile(
            name="fig5",
            title="Backdoor accuracy and W (paper: Fig. 5)",
            caption="Mean W of triggered points over backdoor accuracy at the sigma chosen on "
            "clean points. Hollow: below random guess, left out of the correlation.",
            draw=draw,
            rows=rows,
            chart=chart,
            table="correlations",
            about=("C5", "C6"),
            number=5,
        ),
    ),
)
