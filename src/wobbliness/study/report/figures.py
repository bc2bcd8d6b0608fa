"""Figures in the paper's form, drawn from the tables of a study.

Each is written as PNG and SVG, the same bytes every time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from wobbliness.reports.plot_style import FIGURE_STYLE, RESOLUTION
from wobbliness.runtime.files import make_folder, write_atomically
from wobbliness.study.report import box_figures, chart_rows, charts, curve_figures
from wobbliness.study.report.charts import Chart
from wobbliness.study.tables.tables import Tables, claims_done


@dataclass(frozen=True, kw_only=True)
class FigureFile:
    """Figure of the study, its files' name and caption.

    It is drawn when all cells of its claims are recorded and its table has rows. `rows` are what a
    reader can download, `chart` shows them on a screen. `about` lists the claims it is evidence
    for, where these are others than it needs.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[Tables], Figure]
    rows: Callable[[Tables], pd.DataFrame] | None = None
    chart: Callable[[], Chart] | None = None
    claims: tuple[str, ...] = ()
    about: tuple[str, ...] = ()
    table: str = "status"


def draw_figures(tables: Tables, folder: Path) -> list[FigureFile]:
    """Draws every figure whose claims are measured, as PNG and SVG.

    Returns them in the paper's order.
    """
    done = set(claims_done(tables))
    drawn = [
        figure
        for figure in FIGURES
        if set(figure.claims) <= done and len(getattr(tables, figure.table))
    ]
    make_folder(folder)
    with matplotlib.rc_context(FIGURE_STYLE):
        for entry in drawn:
            figure = entry.draw(tables)
            for suffix, metadata in ((".png", {"Software": None}), (".svg", {"Date": None})):
                _save(figure, folder / f"{entry.name}{suffix}", metadata)
                # both files are laid out alike, and that takes as long as drawing
                figure.set_layout_engine("none")
    return drawn


def _save(figure: Figure, path: Path, metadata: dict[str, None]) -> None:
    write_atomically(path, lambda file: figure.savefig(file, dpi=RESOLUTION, metadata=metadata))


FIGURES = (
    FigureFile(
        name="fig1",
        title="Votes around one point (paper: Fig. 1)",
        caption="250 noisy copies of a clean point and of a triggered one: which classes the "
        "network names, by sigma. One colour everywhere is W = 0.",
        draw=box_figures.draw_noise_ball,
        rows=chart_rows.example_rows,
        claims=("C3",),
        table="example",
    ),
    FigureFile(
        name="fig2-draws",
        title="W and the number of draws (paper: Fig. 2 left)",
        caption="Box plots of W over the clean points; the line across a box: mean. Diamonds: the "
        "mean with the Miller-Madow correction; what of the rise they lack is the plug-in "
        "estimator's bias, not the network.",
        draw=box_figures.draw_draws,
        rows=chart_rows.draws_rows,
        chart=charts.draws_boxes,
        claims=("C1",),
    ),
    FigureFile(
        name="fig2-sigma",
        title="W and the standard deviation of the noise (paper: Fig. 2 right)",
        caption="Box plots of W over the clean points at each sigma; the line across a box: mean.",
        draw=box_figures.draw_sigma,
        rows=chart_rows.sigma_rows,
        chart=charts.sigma_boxes,
        claims=("C2",),
    ),
    FigureFile(
        name="fig3-triggers",
        title="The six triggers (paper: Fig. 3)",
        caption="Our own patterns, on a grey 8 x 8 image; each overwrites its box in the lower "
        "right corner.",
        draw=box_figures.draw_triggers,
    ),
    FigureFile(
        name="fig4",
        title="Backdoor smoothing (paper: Fig. 4)",
        caption="W of clean points (blue) beside W of points with the trigger that the network was "
        "trained on (active) and with another one (inactive), first network.",
        draw=box_figures.draw_effect,
        rows=chart_rows.effect_rows,
        chart=charts.effect_boxes,
        claims=("C3", "C4"),
    ),
    FigureFile(
        name="fig5",
        title="Backdoor accuracy and W (paper: Fig. 5)",
        caption="Mean W of triggered points over backdoor accuracy at the sigma chosen on clean "
        "points. Hollow: below random guess, left out of the correlation.",
        draw=curve_figures.draw_strength,
        rows=chart_rows.strength_rows,
        chart=charts.strength_dots,
        table="correlations",
        about=("C5", "C6"),
    ),
    FigureFile(
        name="fig6",
        title="Telling active triggers from the rest (paper: Fig. 6)",
        caption="ROC of the batch tests over all networks and triggers, each network at its own "
        "chosen sigma; area with its 95 % interval.",
        draw=curve_figures.draw_roc,
        rows=chart_rows.roc_rows,
        chart=charts.roc_lines,
        claims=("C7",),
    ),
    FigureFile(
        name="fig6-sigma",
        title="The same at every sigma",
        caption="Area under the ROC curve with its 95 % interval over the whole grid.",
        draw=curve_figures.draw_roc_sigma,
        rows=chart_rows.area_rows,
        chart=charts.area_intervals,
        claims=("C7",),
    ),
    FigureFile(
        name="fig7",
        title="Universal adversarial perturbations (paper: Fig. 7)",
        caption="ROC of the batch tests: batches with a universal perturbation against clean ones: "
        "untargeted in both norms, and targeted.",
        draw=curve_figures.draw_universal,
        rows=chart_rows.universal_rows,
        chart=charts.roc_lines,
        claims=("C8",),
    ),
    FigureFile(
        name="implanted",
        title="Implanted triggers and Neural Cleanse candidates",
        caption="ROC of the batch tests: batches with the implanted trigger against batches with a "
        "crafted candidate of another class, on the same networks.",
        draw=curve_figures.draw_implanted,
        rows=chart_rows.implanted_rows,
        chart=charts.roc_lines,
        claims=("C9",),
        about=("C9", "X2"),
    ),
    FigureFile(
        name="controls",
        title="Negative controls",
        caption="Random pairs of batches without an active trigger. Levene's test is blind to the "
        "sign: it fires where a pattern makes W rise. The directional test asks whether W is "
        "lower.",
        draw=curve_figures.draw_controls,
        rows=chart_rows.control_rows,
        chart=charts.control_intervals,
        table="controls",
    ),
)
