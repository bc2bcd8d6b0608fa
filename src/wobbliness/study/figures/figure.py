"""Figure of a study: its files, its caption, how it is drawn, and the rows that it shows."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from wobbliness.study.tables.tables import Tables

Chart = dict[str, Any]
"""A Vega-Lite specification without data: the page gives it the rows of the figure's CSV file."""


@dataclass(frozen=True, kw_only=True)
class FigureFile:
    """Figure of a study.

    Attributes:
        name: of its files.
        title: above it on the page.
        caption: below it.
        draw: draws it from the tables.
        rows: what a reader can download; each value of a column `panel` is a chart.
        chart: shows the rows on a screen.
        claims: it is drawn when all cells of these are recorded.
        about: the claims it is evidence for, where these are others than `claims`.
        table: it is drawn when this table has rows.
        number: of the paper's figure, by which figures are in order; further ones follow.
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
    number: float = math.inf
