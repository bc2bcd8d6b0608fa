"""ROC curves of the batch tests over questions, side by side: figure, rows and chart."""

from collections.abc import Iterator, Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wobbliness.reports.plot_style import TEST_STYLES, side_by_side
from wobbliness.statistics.two_sample import RocCurve
from wobbliness.study.figures.figure import Chart
from wobbliness.study.figures.vega import COLOURS, by_legend, if_in_legend
from wobbliness.study.tables.comparisons import PVALUE_COLUMNS
from wobbliness.study.tables.curves import Question, question_curve
from wobbliness.study.tables.tables import Tables

Panels = Mapping[str, Question]
"""Questions by the title of their axes."""


def draw_rocs(tables: Tables, panels: Panels, *, width: float | None = None) -> Figure:
    """Draws the ROC curves of each question, at each network's chosen sigma."""
    figure, axes = side_by_side(len(panels), width=width)
    for axis, (title, question) in zip(axes, panels.items(), strict=True):
        _draw_roc(axis, tables, question, title)
    return figure


def roc_rows(tables: Tables, panels: Panels) -> pd.DataFrame:
    """Returns the points of all curves: a panel for each question."""
    frames = list(_curve_frames(tables, panels))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def roc_lines() -> Chart:
    """Returns a ROC curve for each test."""
    rate = {"type": "quantitative", "scale": {"domain": [0, 1]}}
    guess = {
        "data": {"values": [{"a": 0}, {"a": 1}]},
        "mark": {"type": "line", "strokeDash": [2, 4], "color": "currentColor"},
        "encoding": {"x": {"field": "a"} | rate, "y": {"field": "a"} | rate},
    }
    curves = {
        "mark": {"type": "line", "strokeWidth": 2.5, "point": {"size": 20}},
        "params": [by_legend("series")],
        "encoding": _line_encoding(rate),
    }
    return {"layer": [guess, curves]}


def _line_encoding(rate: Chart) -> Chart:
    names = ("test", "area", "false_positive_rate", "true_positive_rate")
    return {
        "x": {"field": "false_positive_rate", "title": "false positive rate"} | rate,
        "y": {"field": "true_positive_rate", "title": "true positive rate"} | rate,
        "color": {
            "field": "series",
            "sort": None,
            "scale": {"range": COLOURS},
            "legend": {"title": None},
        },
        "strokeDash": {"field": "series", "sort": None, "legend": {"title": None}},
        "opacity": if_in_legend(),
        "tooltip": [{"field": name, "title": name.replace("_", " ")} for name in names],
    }


def _draw_roc(axis: Axes, tables: Tables, question: Question, title: str) -> None:
    axis.plot([0, 1], [0, 1], ":", color="grey", label="random guess")
    for test, (colour, line) in TEST_STYLES.items():
        curve = question_curve(tables.tests, question, test, None)
        if curve is not None:
            label = f"{test}: {_area_text(curve)}"
            axis.plot(
                curve.false_positive_rate, curve.true_positive_rate, line, color=colour, label=label
            )
    axis.set(xlabel="false positive rate", ylabel="true positive rate", title=title)
    axis.legend(frameon=False, fontsize=7, loc="best")


def _curve_frames(tables: Tables, panels: Panels) -> Iterator[pd.DataFrame]:
    for panel, question in panels.items():
        for test in PVALUE_COLUMNS:
            curve = question_curve(tables.tests, question, test, None)
            if curve is not None:
                area = _area_text(curve)
                rates = {
                    "false_positive_rate": curve.false_positive_rate,
                    "true_positive_rate": curve.true_positive_rate,
                }
                frame = pd.DataFrame(rates)
                yield frame.assign(panel=panel, test=test, area=area, series=f"{test}: {area}")


def _area_text(curve: RocCurve) -> str:
    return f"{curve.auc:.2f} [{curve.auc_lower:.2f}, {curve.auc_upper:.2f}]"
