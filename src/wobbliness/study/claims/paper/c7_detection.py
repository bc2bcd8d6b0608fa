"""C7: the batch tests on functioning triggers (section 3.2.4, Fig. 6)."""

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from wobbliness.reports.plot_style import TEST_STYLES, side_by_side
from wobbliness.study.claims.base import Answer, Claim
from wobbliness.study.claims.reading import area_plot, areas_text, chosen_areas, sizes_text
from wobbliness.study.figures.figure import FigureFile
from wobbliness.study.figures.roc import draw_rocs, roc_lines, roc_rows
from wobbliness.study.figures.vega import SIGMA_TITLE, intervals
from wobbliness.study.tables.comparisons import PVALUE_COLUMNS
from wobbliness.study.tables.curves import ACTIVE, MIN_BACKDOOR_ACCURACY, TRAINED
from wobbliness.study.tables.tables import Tables

MIN_DETECTION_AUC = 0.95  # area under the ROC curve
PANELS = {"active triggers against the rest": ACTIVE}


def find(tables: Tables) -> Answer:
    """Reads the areas of Levene's test as in the paper, and of the directional one.

    An active trigger counts if it functions.
    """
    rows, trained = chosen_areas(tables, ACTIVE), chosen_areas(tables, TRAINED)
    if rows.empty:
        return Answer(statements=("no backdoor was learnt",), holds=False, settings="")
    # TRAINED has all active triggers, ACTIVE those that function
    num_failed = trained.num_positives.iloc[0] - rows.num_positives.iloc[0]
    return Answer(
        statements=(
            areas_text(rows),
            f"with the {num_failed} triggers that do not function among the positives: "
            f"{areas_text(trained)}",
        ),
        holds=bool(rows.auc["levene"] >= MIN_DETECTION_AUC),
        settings=f"{sizes_text(rows, 'functioning', 'other')} of "
        f"{tables.recipe.detection_points} points",
        number=f"{rows.auc['levene']:.2f}",
        plot=area_plot(tables, ACTIVE, MIN_DETECTION_AUC),
    )


def draw_areas(tables: Tables) -> Figure:
    """Draws the area under the ROC curve over the whole grid of sigmas.

    Nothing is tuned on the labels.
    """
    figure, (axis,) = side_by_side(1, width=4.2)
    rows = area_rows(tables)
    grid = sorted(rows.sigma.unique(), key=float)
    for offset, test in enumerate(PVALUE_COLUMNS):
        here = rows[rows.test == test].set_index("sigma").loc[grid]
        errors = np.abs(np.stack([here.auc - here.auc_lower, here.auc_upper - here.auc]))
        colour, line = TEST_STYLES[test]
        # tests side by side, or their intervals would cover each other
        positions = np.arange(len(grid)) + 0.08 * (offset - 1)
        axis.errorbar(
            positions,
            here.auc,
            errors,
            color=colour,
            linestyle=line,
            marker="o",
            markersize=3,
            capsize=2,
            label=test,
        )
    axis.axhline(0.5, color="grey", linestyle=":")
    axis.set(ylim=(0, 1.02), ylabel="AUC", xlabel=SIGMA_TITLE)
    axis.set_xticks(range(len(grid)), grid)
    axis.legend(frameon=False, fontsize=7)
    return figure


def area_rows(tables: Tables) -> pd.DataFrame:
    """Returns the areas over the grid of sigmas."""
    rows = tables.roc[(tables.roc.sigma != "chosen") & (tables.roc.question == ACTIVE.name)]
    return rows[
        ["sigma", "test", "auc", "auc_lower", "auc_upper", "num_positives", "num_negatives"]
    ]


CLAIM = Claim(
    id="C7",
    topic="Levene's test finds working triggers",
    claim="Levene's test on W tells functioning active triggers from inactive ones and from clean "
    "points",
    paper="AUC 0.99 (CIFAR-10 T1), 1.0 (Fashion-MNIST T3) (Fig. 6)",
    rule=f"AUC of Levene's p-value (outliers removed) at least {MIN_DETECTION_AUC:g}, at the sigma "
    "chosen for it on clean points; an active trigger functions if its backdoor accuracy is at "
    f"least {MIN_BACKDOOR_ACCURACY:.0%} (paper: 99 %)",
    find=find,
    quantity="area under the ROC curve (AUC) of Levene's test",
    wanted=f"AUC ≥ {MIN_DETECTION_AUC:g}",
    tables=("roc", "tests"),
    figures=(
        FigureFile(
            name="fig6",
            title="Telling active triggers from the rest (paper: Fig. 6)",
            caption="ROC of the batch tests over all networks and triggers, each network at its "
            "own chosen sigma; area with its 95 % interval.",
            draw=partial(draw_rocs, panels=PANELS, width=4.2),
            rows=partial(roc_rows, panels=PANELS),
            chart=roc_lines,
            claims=("C7",),
            number=6,
        ),
        FigureFile(
            name="fig6-sigma",
            title="The same at every sigma",
            caption="Area under the ROC curve with its 95 % interval over the whole grid.",
            draw=draw_areas,
            rows=area_rows,
            chart=partial(
                intervals, "sigma", SIGMA_TITLE, ("auc", "auc_lower", "auc_upper"), "AUC", 0.5
            ),
            claims=("C7",),
            number=6,
        ),
    ),
)
