"""Figures for the screen, as Vega-Lite charts without data.

The page gives each chart the rows of the figure's CSV file.
"""

from typing import Any

from wobbliness.study.tables.comparisons import LEVEL

Chart = dict[str, Any]
"""A Vega-Lite specification without data."""

COLOURS = [f"var(--series-{number})" for number in (1, 2, 3)]
"""Of the page's style, which knows light from dark."""

DRAWS, SIGMA = "draws n", "sigma (pixel units)"
KINDS = ["clean", "active", "inactive"]


def sigma_boxes() -> Chart:
    """Returns box plots of W at each sigma; the tick is the mean."""
    return _boxes("sigma", SIGMA)


def draws_boxes() -> Chart:
    """Returns box plots of W over the number of draws.

    Diamonds are the means after the Miller-Madow correction.
    """
    chart = _boxes("draws", DRAWS)
    corrected = {"aggregate": "mean", "field": "miller_madow", "type": "quantitative"}
    mark = {
        "type": "point",
        "shape": "diamond",
        "filled": True,
        "size": 60,
        "color": "currentColor",
    }
    tooltip = [_x("draws", DRAWS), corrected | {"title": "mean W, Miller-Madow", "format": ".3f"}]
    chart["layer"].append(
        {"mark": mark, "encoding": {"x": _x("draws", DRAWS), "y": corrected, "tooltip": tooltip}}
    )
    return chart


def effect_boxes() -> Chart:
    """Returns box plots of W of clean, active and inactive points side by side."""
    colour = {
        "field": "kind",
        "scale": {"domain": KINDS, "range": COLOURS},
        "legend": {"title": None, "direction": "horizontal"},
        "sort": KINDS,
    }
    offset = {"field": "kind", "sort": KINDS}
    layers = [_box("sigma", SIGMA, size=14), _mean("sigma", SIGMA)]
    for layer, size in zip(layers, (None, 14), strict=True):
        layer["encoding"] |= {"xOffset": offset}
        if size is None:
            layer["encoding"] |= {"color": colour}
            del layer["mark"]["color"]
        else:
            layer["mark"]["size"] = size
            layer["encoding"]["tooltip"].insert(0, {"field": "kind"})
    return {"layer": layers}


def strength_dots() -> Chart:
    """Returns a dot for each backdoor; hollow where it was left out."""
    names = ("network", "trigger", "label", "backdoor_accuracy", "mean_w", "is_learnt")
    return {
        "mark": {"type": "point", "size": 45, "tooltip": True},
        "params": [_by_legend("trigger")],
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
            "fillOpacity": {
                "condition": {"test": "datum.is_learnt === 'True'", "value": 0.7},
                "value": 0,
            },
            "opacity": _if_in_legend(),
            "tooltip": [{"field": name, "title": name.replace("_", " ")} for name in names],
        },
    }


def roc_lines() -> Chart:
    """Returns a ROC curve for each test."""
    rate = {"type": "quantitative", "scale": {"domain": [0, 1]}}
    names = ("test", "area", "false_positive_rate", "true_positive_rate")
    guess = {
        "data": {"values": [{"a": 0}, {"a": 1}]},
        "mark": {"type": "line", "strokeDash": [2, 4], "color": "currentColor"},
    }
    return {
        "layer": [
            guess | {"encoding": {"x": {"field": "a"} | rate, "y": {"field": "a"} | rate}},
            {
                "mark": {"type": "line", "strokeWidth": 2.5, "point": {"size": 20}},
                "params": [_by_legend("series")],
                "encoding": {
                    "x": {"field": "false_positive_rate", "title": "false positive rate"} | rate,
                    "y": {"field": "true_positive_rate", "title": "true positive rate"} | rate,
                    "color": {
                        "field": "series",
                        "sort": None,
                        "scale": {"range": COLOURS},
                        "legend": {"title": None},
                    },
                    "strokeDash": {"field": "series", "sort": None, "legend": {"title": None}},
                    "opacity": _if_in_legend(),
                    "tooltip": [{"field": name, "title": name.replace("_", " ")} for name in names],
                },
            },
        ]
    }


def area_intervals() -> Chart:
    """Returns areas under the ROC curve with their intervals, by sigma."""
    return _intervals("sigma", SIGMA, ("auc", "auc_lower", "auc_upper"), "AUC", 0.5)


def control_intervals() -> Chart:
    """Returns shares with their intervals, by kind of pair.

    Horizontal, for the kinds have long names.
    """
    chart = _intervals(
        "pairs",
        "",
        ("estimate", "lower", "upper"),
        "share of pairs with p at most the level",
        LEVEL,
    )
    for layer in chart["layer"]:
        encoding = layer["encoding"]
        turned = {"x": "y", "y": "x", "y2": "x2", "xOffset": "yOffset"}
        layer["encoding"] = {
            turned.get(channel, channel): value for channel, value in encoding.items()
        }
    chart["layer"][1]["encoding"]["y"]["axis"] = {
        "labelLimit": 0,
        "labelExpr": "split(datum.label, ', ')",
    }
    return chart | {"height": 300}


def _x(field: str, title: str) -> Chart:
    return {"field": field, "type": "ordinal", "title": title, "axis": {"labelAngle": 0}}


def _boxes(x: str, x_title: str) -> Chart:
    return {"layer": [_box(x, x_title), _mean(x, x_title)]}


def _box(x: str, x_title: str, size: int = 22) -> Chart:
    mark = {
        "type": "boxplot",
        "extent": 1.5,
        "size": size,
        "color": COLOURS[0],
        "median": {"opacity": 0},
    }
    mark |= {
        "box": {"fillOpacity": 0.5},
        "rule": {"color": "currentColor", "opacity": 0.6},
        "outliers": {"size": 8, "filled": True, "opacity": 0.6},
    }
    y = {"field": "wobbliness", "type": "quantitative", "title": "W (nats)"}
    return {"mark": mark, "encoding": {"x": _x(x, x_title), "y": y}}


def _mean(x: str, x_title: str) -> Chart:
    mean = {"aggregate": "mean", "field": "wobbliness", "type": "quantitative"}
    tooltip = [
        _x(x, x_title),
        mean | {"title": "mean W", "format": ".3f"},
        {"aggregate": "count", "title": "points"},
    ]
    mark = {"type": "tick", "color": "currentColor", "thickness": 2.5, "size": 22}
    return {"mark": mark, "encoding": {"x": _x(x, x_title), "y": mean, "tooltip": tooltip}}


def _intervals(
    x: str, x_title: str, columns: tuple[str, str, str], y_title: str, line: float
) -> Chart:
    estimate, lower, upper = columns
    shared: Chart = {
        "x": _x(x, x_title) | {"sort": None},
        "xOffset": {"field": "test", "sort": None},
        "color": {
            "field": "test",
            "sort": None,
            "scale": {"range": COLOURS},
            "legend": {"title": None},
        },
        "opacity": _if_in_legend(),
        "tooltip": [
            {"field": name, "title": name.replace("_", " ")} for name in (x, "test", *columns)
        ],
    }
    y = {"type": "quantitative", "scale": {"domain": [0, 1]}, "title": y_title}
    rule = {"type": "rule", "strokeDash": [2, 4], "color": "currentColor"}
    return {
        "layer": [
            {"mark": rule, "encoding": {"y": {"datum": line} | y}},
            {
                "mark": {"type": "rule", "strokeWidth": 2},
                "params": [_by_legend("test")],
                "encoding": shared | {"y": {"field": lower} | y, "y2": {"field": upper}},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 55},
                "encoding": shared
                | {
                    "y": {"field": estimate} | y,
                    "shape": {"field": "test", "sort": None, "legend": None},
                },
            },
        ]
    }


def _by_legend(field: str) -> Chart:
    return {"name": "chosen", "select": {"type": "point", "fields": [field]}, "bind": "legend"}


def _if_in_legend() -> Chart:
    return {"condition": {"param": "chosen", "value": 1}, "value": 0.12}
