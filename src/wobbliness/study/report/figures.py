"""Figures of a study in the paper's form, drawn from its tables.

Each is written as PNG and SVG, the same bytes every time. A claim's figures are in the claim's
file; here are those that belong to no claim.
"""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from wobbliness.attacks.patch import trigger
from wobbliness.reports.plot_style import (
    FIGURE_STYLE,
    RESOLUTION,
    TEST_STYLES,
    laid_out,
    side_by_side,
)
from wobbliness.runtime.files import make_folder, write_atomically
from wobbliness.study.claims.claims import all_claims, claims_done
from wobbliness.study.figures.figure import Chart, FigureFile
from wobbliness.study.figures.vega import intervals
from wobbliness.study.recipes import PAPER_TRIGGERS
from wobbliness.study.tables.comparisons import LEVEL, PVALUE_COLUMNS
from wobbliness.study.tables.tables import Tables


def all_figures() -> tuple[FigureFile, ...]:
    """Returns the figures of the claims and the others, in the paper's order; further ones last."""
    figures = [figure for claim in all_claims() for figure in claim.figures]
    # a stable sort: figures of one number, or without, stay in the order of their claims
    return tuple(sorted((*figures, *OTHER_FIGURES), key=lambda figure: figure.number))


def draw_figures(tables: Tables, folder: Path) -> list[FigureFile]:
    """Draws every figure whose claims are measured, as PNG and SVG.

    Returns them in the paper's order.
    """
    done = claims_done(tables)
    drawn = [
        figure
        for figure in all_figures()
        if set(figure.claims) <= done and len(getattr(tables, figure.table))
    ]
    make_folder(folder)
    with matplotlib.rc_context(FIGURE_STYLE):
        for entry in drawn:
            figure = laid_out(entry.draw(tables), RESOLUTION)
            for suffix, metadata in ((".png", {"Software": None}), (".svg", {"Date": None})):
                _save(figure, folder / f"{entry.name}{suffix}", metadata)
    return drawn


def _save(figure: Figure, path: Path, metadata: dict[str, None]) -> None:
    write_atomically(path, lambda file: figure.savefig(file, dpi=RESOLUTION, metadata=metadata))


def draw_triggers(tables: Tables) -> Figure:  # noqa: ARG001
    """Draws Fig. 3: the six triggers.

    Every figure is drawn from the tables; this one needs none of them.
    """
    figure = Figure(figsize=(6.4, 1.5), layout="constrained")
    axes = np.ravel(figure.subplots(1, len(PAPER_TRIGGERS)))
    for axis, name in zip(axes, PAPER_TRIGGERS, strict=True):
        picture = trigger(name).apply(np.full((1, 1, 8, 8), 0.4, np.float32))[0, 0]
        axis.imshow(picture, cmap="gray", vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[], title=name)
    return figure


def draw_controls(tables: Tables) -> Figure:
    """Draws the negative controls.

    How often each test fires on pairs without an active trigger.
    """
    controls = tables.controls
    figure, (axis,) = side_by_side(1, width=6.4)
    kinds = list(dict.fromkeys(controls.pairs))
    for offset, test in enumerate(PVALUE_COLUMNS):
        rows = controls[controls.test == test].set_index("pairs").loc[kinds]
        errors = np.abs(np.stack([rows.estimate - rows.lower, rows.upper - rows.estimate]))
        # tests side by side, or their intervals would cover each other
        positions, colour = np.arange(len(kinds)) + 0.15 * (offset - 1), TEST_STYLES[test][0]
        axis.errorbar(
            positions, rows.estimate, errors, fmt="o", color=colour, capsize=2, label=test
        )
    axis.axhline(controls.level.iloc[0], color="grey", linestyle=":", label="stated level")
    axis.set(ylim=(0, 1), ylabel="share of pairs with p at most the level")
    axis.set_xticks(range(len(kinds)), [kind.replace(", ", ",\n") for kind in kinds])
    axis.legend(frameon=False, fontsize=7)
    return figure


def control_rows(tables: Tables) -> pd.DataFrame:
    """Returns the rows of the negative controls."""
    return tables.controls


def control_intervals() -> Chart:
    """Returns shares with their intervals, by kind of pair.

    Horizontal, for the kinds have long names.
    """
    columns = ("estimate", "lower", "upper")
    chart = intervals("pairs", "", columns, "share of pairs with p at most the level", LEVEL)
    turned = {"x": "y", "y": "x", "y2": "x2", "xOffset": "yOffset"}
    for layer in chart["layer"]:
        layer["encoding"] = {
            turned.get(channel, channel): value for channel, value in layer["encoding"].items()
        }
    chart["layer"][1]["encoding"]["y"]["axis"] = {
        "labelLimit": 0,
        "labelExpr": "split(datum.label, ', ')",
    }
    return chart | {"height": 300}


OTHER_FIGURES = (
    FigureFile(
        name="fig3-triggers",
        title="The six triggers (paper: Fig. 3)",
        caption="Our own patterns, on a grey 8 x 8 image; each overwrites its box in the lower "
        "right corner.",
        draw=draw_triggers,
        number=3,
    ),
    FigureFile(
        name="controls",
        title="Negative controls",
        caption="Random pairs of batches without an active trigger. Levene's test is blind to the "
        "sign: it fires where a pattern makes W rise. The directional test asks whether W is "
        "lower.",
        draw=draw_controls,
        rows=control_rows,
        chart=control_intervals,
        table="controls",
    ),
)
"""Figures that belong to no claim."""
