"""Figures in the paper's form, drawn from the tables of a study. Each is written as PNG and SVG, the same bytes every time."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wobbliness.study.comparisons import PVALUE_COLUMNS, detection_curve
from wobbliness.study.records import write_beside
from wobbliness.study.tables import Tables, claims_done, parameter_sigma
from wobbliness.triggers import TRIGGER_NAMES, trigger

CLEAN, ACTIVE, INACTIVE = "#0072B2", "#E69F00", "#009E73"  # Okabe and Ito's palette, safe for colour-blind readers
TEST_STYLES = {"levene": ("#E69F00", "-"), "levene, all points": ("#CC79A7", "--"), "directional": ("#0072B2", "-.")}
RESOLUTION = 110
_STYLE: Any = {
    "svg.hashsalt": "wobbliness",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
}


@dataclass(frozen=True, kw_only=True)
class FigureFile:
    """A figure of the study, its files' name and what one sees on it.

    It is drawn when all cells of its claims are recorded and its table has rows.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[Tables], Figure]
    claims: tuple[str, ...] = ()
    table: str = "status"


def draw_figures(tables: Tables, folder: Path) -> list[FigureFile]:
    """Draws every figure whose claims are measured, as PNG and SVG, and returns them in the paper's order."""
    done = set(claims_done(tables))
    drawn = [figure for figure in FIGURES if set(figure.claims) <= done and len(getattr(tables, figure.table))]
    folder.mkdir(exist_ok=True)
    with matplotlib.rc_context(_STYLE):
        for entry in drawn:
            figure = entry.draw(tables)
            for suffix, metadata in ((".png", {"Software": None}), (".svg", {"Date": None})):
                _save(figure, folder / f"{entry.name}{suffix}", metadata)
    return drawn


def _save(figure: Figure, path: Path, metadata: dict[str, None]) -> None:
    write_beside(path, lambda beside: figure.savefig(beside, dpi=RESOLUTION, metadata=metadata))


def _draws_figure(tables: Tables) -> Figure:
    """Fig. 2 left, at the sigma chosen on clean data, with the Miller-Madow means."""
    points = _points_of(tables, "C1")
    sigma = parameter_sigma(tables)
    points = points[points.sigma == sigma]
    figure, axes = _figure(1)
    grid = sorted(points.draws.unique())
    _boxes(axes[0], [points[points.draws == draws].wobbliness for draws in grid], range(len(grid)), CLEAN)
    corrected = [points[points.draws == draws].miller_madow.mean() for draws in grid]
    axes[0].plot(range(len(grid)), corrected, "D:", color="black", markersize=3, label="mean, Miller-Madow")
    _finish(axes[0], "draws n", [str(draws) for draws in grid], f"clean points, sigma {sigma:g}")
    axes[0].legend(frameon=False, fontsize=7)
    return figure


def _sigma_figure(tables: Tables) -> Figure:
    """Fig. 2 right."""
    points = _points_of(tables, "C2")
    figure, axes = _figure(1)
    grid = sorted(points.sigma.unique())
    _boxes(axes[0], [points[points.sigma == sigma].wobbliness for sigma in grid], range(len(grid)), CLEAN)
    _finish(axes[0], "sigma (pixel units)", [f"{sigma:g}" for sigma in grid], "clean points")
    return figure


def _effect_figure(tables: Tables) -> Figure:
    """Fig. 4: clean against the active trigger, and against the inactive one, on the first network."""
    points = _points_of(tables, "C3", "C4")
    points = points[points.network == points.network.iloc[0]]
    figure, axes = _figure(2)
    grid = sorted(points.sigma.unique())
    for axis, kind, colour in zip(axes, ("active", "inactive"), (ACTIVE, INACTIVE), strict=True):
        clean, suspect = points[points.batch == "clean"], points[points.kind == kind]
        for batch, offset, shade in ((clean, -0.2, CLEAN), (suspect, 0.2, colour)):
            series = [batch[batch.sigma == sigma].wobbliness for sigma in grid]
            _boxes(axis, series, np.arange(len(grid)) + offset, shade, width=0.34)
        _finish(
            axis,
            "sigma (pixel units)",
            [f"{sigma:g}" for sigma in grid],
            f"clean (blue) and {kind} trigger {suspect.trigger.iloc[0]}",
        )
    return figure


def _roc_figure(tables: Tables) -> Figure:
    """Fig. 6, for each test, at each network's chosen sigma."""
    figure, axes = _figure(1, width=4.2)
    axes[0].plot([0, 1], [0, 1], ":", color="grey", label="random guess")
    for test, (colour, line) in TEST_STYLES.items():
        curve = detection_curve(tables.tests, test, None)
        interval = f"{curve.auc:.2f} [{curve.auc_lower:.2f}, {curve.auc_upper:.2f}]"
        axes[0].plot(curve.false_positive_rate, curve.true_positive_rate, line, color=colour, label=f"{test}: {interval}")
    axes[0].set(xlabel="false positive rate", ylabel="true positive rate", title="active triggers against the rest")
    axes[0].legend(frameon=False, fontsize=7, loc="lower right")
    return figure


def _roc_sigma_figure(tables: Tables) -> Figure:
    """Area under the ROC curve over the whole grid of sigmas: nothing is tuned on the labels."""
    figure, axes = _figure(1, width=4.2)
    rows = tables.roc[tables.roc.sigma != "chosen"]
    grid = sorted(rows.sigma.unique(), key=float)
    for offset, test in enumerate(PVALUE_COLUMNS):
        here = rows[rows.test == test].set_index("sigma").loc[grid]
        errors = np.abs(np.stack([here.auc - here.auc_lower, here.auc_upper - here.auc]))
        colour, line = TEST_STYLES[test]
        positions = np.arange(len(grid)) + 0.08 * (offset - 1)
        axes[0].errorbar(
            positions, here.auc, errors, color=colour, linestyle=line, marker="o", markersize=3, capsize=2, label=test
        )
    axes[0].axhline(0.5, color="grey", linestyle=":")
    axes[0].set(ylim=(0, 1.02), ylabel="AUC", xlabel="sigma (pixel units)")
    axes[0].set_xticks(range(len(grid)), grid)
    axes[0].legend(frameon=False, fontsize=7)
    return figure


def _controls_figure(tables: Tables) -> Figure:
    """Negative controls: how often each test fires on pairs without an active trigger."""
    figure, axes = _figure(1, width=6.4)
    kinds = list(dict.fromkeys(tables.controls.pairs))
    for offset, test in enumerate(PVALUE_COLUMNS):
        rows = tables.controls[tables.controls.test == test].set_index("pairs").loc[kinds]
        errors = np.abs(np.stack([rows.estimate - rows.lower, rows.upper - rows.estimate]))
        positions = np.arange(len(kinds)) + 0.15 * (offset - 1)
        axes[0].errorbar(positions, rows.estimate, errors, fmt="o", color=TEST_STYLES[test][0], capsize=2, label=test)
    axes[0].axhline(tables.controls.level.iloc[0], color="grey", linestyle=":", label="stated level")
    axes[0].set(ylim=(0, 1), ylabel="share of pairs with p at most the level")
    axes[0].set_xticks(range(len(kinds)), [kind.replace(", ", ",\n") for kind in kinds])
    axes[0].legend(frameon=False, fontsize=7)
    return figure


def _triggers_figure(tables: Tables) -> Figure:  # noqa: ARG001 - every figure is drawn from the tables; this one needs none
    """Fig. 3: the six triggers."""
    figure = Figure(figsize=(6.4, 1.5), layout="constrained")
    for axis, name in zip(np.ravel(figure.subplots(1, len(TRIGGER_NAMES))), TRIGGER_NAMES, strict=True):
        picture = trigger(name).apply(np.full((1, 1, 8, 8), 0.4, np.float32))[0, 0]
        axis.imshow(picture, cmap="gray", vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[], title=name)
    return figure


FIGURES = (
    FigureFile(
        name="fig2-draws",
        title="W and the number of draws (paper: Fig. 2 left)",
        caption="Box plots of W over the clean points; orange line: mean. Diamonds: the mean with the Miller-Madow "
        "correction; what of the rise they lack is the plug-in estimator's bias, not the network.",
        draw=_draws_figure,
        claims=("C1",),
    ),
    FigureFile(
        name="fig2-sigma",
        title="W and the standard deviation of the noise (paper: Fig. 2 right)",
        caption="Box plots of W over the clean points at each sigma; orange line: mean.",
        draw=_sigma_figure,
        claims=("C2",),
    ),
    FigureFile(
        name="fig3-triggers",
        title="The six triggers (paper: Fig. 3)",
        caption="Our own patterns, on a grey 8 x 8 image; each overwrites its box in the lower right corner.",
        draw=_triggers_figure,
    ),
    FigureFile(
        name="fig4",
        title="Backdoor smoothing (paper: Fig. 4)",
        caption="W of clean points (blue) beside W of points with the trigger that the network was trained on (left) and with "
        "another one (right), first network.",
        draw=_effect_figure,
        claims=("C3", "C4"),
    ),
    FigureFile(
        name="fig6",
        title="Telling active triggers from the rest (paper: Fig. 6)",
        caption="ROC of the batch tests over all networks and triggers, each network at its own chosen sigma; "
        "area with its 95 % interval.",
        draw=_roc_figure,
        claims=("C7",),
    ),
    FigureFile(
        name="fig6-sigma",
        title="The same at every sigma",
        caption="Area under the ROC curve with its 95 % interval over the whole grid.",
        draw=_roc_sigma_figure,
        claims=("C7",),
    ),
    FigureFile(
        name="controls",
        title="Negative controls",
        caption="Random pairs of batches without an active trigger. Levene's test is blind to the sign: it fires where a pattern "
        "makes W rise. The directional test asks whether W is lower.",
        draw=_controls_figure,
        table="controls",
    ),
)


def _points_of(tables: Tables, *claims: str) -> pd.DataFrame:
    return tables.points[tables.points.claims.str.contains("|".join(claims))]


def _figure(num_axes: int, *, width: float | None = None) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(width or (5.2 if num_axes == 1 else 8.4), 3.2), layout="constrained")
    return figure, list(np.ravel(figure.subplots(1, num_axes, sharey=True)))


def _boxes(axes: Axes, series: Sequence[pd.Series], positions: Iterable[float], colour: str, *, width: float = 0.6) -> None:
    """Box plots as in the paper: boxes and whiskers in one colour, the mean as an orange line, outliers as dots."""
    axes.boxplot(
        [batch.to_numpy() for batch in series],
        positions=list(positions),
        widths=width,
        showmeans=True,
        meanline=True,
        meanprops={"color": "#D55E00", "linestyle": "-", "linewidth": 1.5},
        medianprops={"linewidth": 0},
        boxprops={"color": colour},
        whiskerprops={"color": colour},
        capprops={"color": colour},
        flierprops={"marker": ".", "markersize": 2.5, "markeredgecolor": colour},
    )


def _finish(axes: Axes, xlabel: str, labels: list[str], title: str) -> None:
    axes.set(xlabel=xlabel, ylabel="W (nats)", title=title)
    axes.set_xticks(range(len(labels)), labels)
