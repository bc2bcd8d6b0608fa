"""Style that the figures share: colours, axes, box plots in the paper's form."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PINK, RED = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00"
"""Okabe and Ito's palette, safe for colour-blind readers.

Clean points are blue, active triggers orange, inactive ones green.
"""

TEST_STYLES = {
    "levene": (ORANGE, "-"),
    "levene, all points": (PINK, "--"),
    "directional": (BLUE, "-."),
}


RESOLUTION = 110  # dots an inch of a PNG
FIGURE_STYLE: Any = {
    # The same figure gives the same bytes: ids in an SVG are hashed with this salt.
    "svg.hashsalt": "wobbliness",
    # Text stays text, which can be searched and read aloud.
    "svg.fonttype": "none",
    "font.size": 9,
    "text.parse_math": False,  # a name between dollars is a name
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
}


def side_by_side(num_axes: int, *, width: float | None = None) -> tuple[Figure, Sequence[Axes]]:
    """Returns a figure of axes that share their y-axis."""
    # A Figure of its own, not pyplot's: those are kept alive, and are not for threads.
    figure = Figure(figsize=(width or (5.2 if num_axes == 1 else 8.4), 3.2), layout="constrained")
    return figure, list(np.ravel(figure.subplots(1, num_axes, sharey=True)))


def laid_out(figure: Figure, resolution: float) -> Figure:
    """Lays a figure out, so that saving it draws it once.

    A figure with a layout engine is drawn twice for each file: first for the layout alone.

    Args:
        figure: changed, and returned.
        resolution: dots an inch at which texts are measured.
    """
    figure.set_dpi(resolution)
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine(None)
    return figure


def draw_boxes(
    axes: Axes,
    series: Sequence[pd.Series | np.ndarray],
    positions: Iterable[float] | Iterable[int],
    colour: str,
    *,
    width: float = 0.6,
    orientation: Literal["vertical", "horizontal"] = "vertical",
) -> None:
    """Draws box plots as in the paper.

    Boxes and whiskers have one colour, the mean is an orange line, outliers are dots.
    """
    axes.boxplot(
        [np.asarray(batch) for batch in series],
        orientation=orientation,
        positions=list(positions),
        widths=width,
        showmeans=True,
        meanline=True,
        meanprops={"color": RED, "linestyle": "-", "linewidth": 1.5},
        medianprops={"linewidth": 0},  # the paper's boxes show the mean alone
        boxprops={"color": colour},
        whiskerprops={"color": colour},
        capprops={"color": colour},
        flierprops={"marker": ".", "markersize": 2.5, "markeredgecolor": colour},
    )


def label_boxes(axes: Axes, xlabel: str, labels: list[str], title: str) -> None:
    """Labels the boxes, from position 0 on, and the axes."""
    axes.set(xlabel=xlabel, ylabel="W (nats)", title=title)
    axes.set_xticks(range(len(labels)), labels)
